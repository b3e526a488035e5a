"use strict";
// The preparation of pictures, step by step as in the Python modules of the reader, which have the reasons.

class NoDigitError extends Error {}
const BLANK = "no digit in it: it looks blank";
const SEVERAL = "more than one digit in it: crop it to one";

/** Return the digit in a picture as MNIST has it, 28×28 pixels 0-255; throw a NoDigitError if there is none or several.
 *  The picture has one channel if it is grey, or three, 0-255. */
function asMNIST(channels) {
  try {
    return segmented(channels);
  } catch (error) {
    const { height, width } = channels[0];
    const factor = Math.ceil(96 / Math.min(height, width));
    if (error.message !== BLANK || factor === 1) throw error;
    const clip = (value) => Math.min(Math.max(value, 0), 255);
    const enlarged = (channel) => mapped(resize(channel, factor * height, factor * width, KERNELS.cubic), clip);
    return segmented(channels.map(enlarged));
  }
}

function segmented(channels) {
  const larger = (one, other) => mapped(one, (value, i) => Math.max(value, other.data[i]));
  const strength = channels.map(inkStrength).reduce(larger);
  return centred(normalisedStrokes(croppedDigit(findInk(strength))));
}

function inkStrength(channel) {
  const { height, width } = channel;
  let reduced = alongBoth(channel, reduction(Math.max(1, round(Math.min(height, width) / 48))));
  const local = alongBoth(reduced, uniform(Math.floor(0.7 * Math.min(reduced.height, reduced.width)) || 1));
  const light = reduced.data.reduce((sum, value, i) => sum + (value - local.data[i]) ** 3, 0) > 0;
  const invert = (value) => (light ? 255 - value : value);
  reduced = mapped(reduced, invert);
  const background = resize(paperUnder(reduced), height, width, KERNELS.linear);
  return mapped(background, (value, i) => {
    const brightness = Math.max(value, 16);
    return (brightness - invert(channel.data[i])) / brightness;
  });
}

function paperUnder(reduced) {
  const side = Math.min(reduced.height, reduced.width);
  const smooth = alongBoth(reduced, gaussian(0.5));
  const margin = Math.floor((0.45 * side) / 2) + 1;
  const padded = alongBoth(smooth, extrapolation(margin));
  const inner = (line) => line.slice(margin, -margin);
  let closed = smooth;
  let previous = 0;
  let enough = false;
  for (const fraction of [0.1, 0.15, 0.2, 0.3, 0.45]) {
    const size = Math.max(3, Math.floor(fraction * side));
    closed = alongBoth(alongBoth(alongBoth(padded, dilation(size)), erosion(size)), inner);
    const changes = closed.data.map((value, i) => ((value - smooth.data[i]) / Math.max(value, 16)) ** 4);
    const removed = changes.reduce((a, b) => a + b, 0);
    if (enough) break;
    enough = previous > 0 && previous >= 0.75 * removed;
    previous = removed;
  }
  return alongBoth(closed, gaussian(1));
}

function otsuThreshold(values) {
  const counts = new Float64Array(256);
  for (const value of values) if (value >= 0 && value <= 1) counts[Math.min(Math.floor(value * 256), 255)]++;
  const sumOf = (bin) => (counts[bin] * (bin + 0.5)) / 256;
  const total = counts.reduce((sum, _, bin) => sum + sumOf(bin), 0);
  let [below, sum, best, threshold] = [0, 0, -1, 0];
  for (let bin = 0; bin < 255; bin++) {
    below += counts[bin];
    sum += sumOf(bin);
    const above = values.length - below;
    const variance = below && above ? below * above * (sum / below - (total - sum) / above) ** 2 : 0;
    if (variance > best) [best, threshold] = [variance, (bin + 1) / 256];
  }
  return threshold;
}

/** Return the ink of a picture without the lines of its paper, given each pixel's contrast with the background. */
function findInk(given) {
  const smooth = Math.min(given.height, given.width) >= 48 ? alongBoth(given, gaussian(0.7)) : given;
  const ink = thresholded(smooth);
  const { lines, certain } = findLines(ink.mask);
  const whole = { ...ink, strength: smooth, ruled: false };
  if (!lines) return whole;
  const crossing = alongBoth(
    mapped(ink.mask, (m, i) => m * (1 - lines.data[i])),
    dilation(3),
  );
  const around = alongBoth(lines, dilation(5));
  const strength = mapped(smooth, (value, i) =>
    lines.data[i] || (around.data[i] && !crossing.data[i]) ? ink.background : value,
  );
  try {
    return { ...thresholded(strength), strength, ruled: true };
  } catch (error) {
    if (certain) throw error;
    return whole;
  }
}

function thresholded(strength) {
  const step = Math.max(1, Math.floor(Math.min(strength.height, strength.width) / 100));
  const sample = alongBoth(strength, (line) => line.filter((_, i) => i % step === 0)).data.sort();
  const background = percentile(sample, 30);
  const noise = 4 * (background - percentile(sample, 5));
  const least = Math.max(background + noise, 0);
  const threshold = otsuThreshold(sample.map((value) => Math.min(Math.max(value, least), 1)));
  const mask = mapped(strength, (value) => Number(value > threshold));
  const marked = strength.data.filter((_, i) => mask.data[i]);
  if (!marked.length || mean(marked) - background < Math.max(0.1, 1.35 * noise)) throw new NoDigitError(BLANK);
  return { mask, background };
}

/** Return the ink of the only digit, 0-1, cropped to its bounding box. */
function croppedDigit(ink) {
  const { strength, background } = ink;
  const { digit, top, bottom, left, right } = digitComponents(ink);
  const full = percentile(strength.data.filter((_, i) => digit.data[i]).sort(), 75);
  const part = (start, end) => (line) => line.slice(start, end);
  const cropped = (picture) => alongColumns(alongColumns(picture, part(top, bottom)), part(left, right));
  const soft = alongBoth(cropped(digit), dilation(3)); // the soft edges of strokes too
  const contrast = full - background;
  return mapped(
    cropped(strength),
    (value, i) => soft.data[i] * Math.min(Math.max((value - background) / contrast, 0), 1),
  );
}

/** Label the 8-connected components of a mask: 1, 2, … */
function labelled({ height, width, data }) {
  const labels = new Int32Array(data.length);
  let count = 0;
  for (let first = 0; first < data.length; first++) {
    if (!data[first] || labels[first]) continue;
    labels[first] = ++count;
    for (const open = [first]; open.length; ) {
      const place = open.pop();
      const x = place % width;
      for (let k = 0; k < 9; k++) {
        const [column, next] = [x + (k % 3) - 1, place + (Math.floor(k / 3) - 1) * width + (k % 3) - 1];
        if (column < 0 || column >= width || next < 0 || next >= height * width) continue;
        if (!data[next] || labels[next]) continue;
        labels[next] = count;
        open.push(next);
      }
    }
  }
  return { labels, count };
}

/** The boxes of labelled components, and the sums of their values in a picture. */
function componentsOf({ labels, count }, { height, width, data }) {
  const all = Array.from({ length: count }, (_, i) => ({
    label: i + 1,
    ink: 0,
    top: height,
    bottom: 0,
    left: width,
    right: 0,
  }));
  for (let i = 0; i < labels.length; i++) {
    if (!labels[i]) continue;
    const part = all[labels[i] - 1];
    const [x, y] = [i % width, Math.floor(i / width)];
    part.ink += data[i];
    part.top = Math.min(part.top, y);
    part.bottom = Math.max(part.bottom, y + 1);
    part.left = Math.min(part.left, x);
    part.right = Math.max(part.right, x + 1);
  }
  return all;
}

function digitComponents({ mask, strength, ruled }) {
  const { height, width } = mask;
  const gap = Math.max(1, round(Math.min(height, width) / 100));
  const { labels, count } = labelled(alongBoth(mask, dilation(2 * gap + 1)));
  for (let i = 0; i < labels.length; i++) labels[i] *= mask.data[i];
  const all = componentsOf({ labels, count }, strength);
  const noLines = all.filter((part) => !isLine(part, labels, height, width));
  const candidates = noLines.length ? noLines : all;
  const main = candidates.reduce((best, part) => (part.ink > best.ink ? part : best));
  const size = Math.max(main.bottom - main.top, main.right - main.left);
  if (size < 8) throw new NoDigitError(BLANK);
  const kept = candidates.filter((part) => {
    const cut = Math.min(part.top, part.left, height - part.bottom, width - part.right) <= 0;
    if (part.ink < 0.03 * main.ink || (part !== main && ruled && cut)) return false;
    const vertical = Math.max(part.top - main.bottom, main.top - part.bottom);
    const horizontal = Math.max(part.left - main.right, main.left - part.right);
    const [shorter, taller] = [part.bottom - part.top, main.bottom - main.top].sort((a, b) => a - b);
    const apart = horizontal > 0.1 * taller || vertical > 0.15 * taller;
    if (part !== main && shorter >= 0.5 * taller && apart) throw new NoDigitError(SEVERAL);
    return Math.max(vertical, horizontal) < 0.3 * size;
  });
  const chosen = new Uint8Array(count + 1);
  for (const { label } of kept) chosen[label] = 1;
  return {
    digit: mapped(mask, (_, i) => chosen[labels[i]]),
    top: Math.min(...kept.map(({ top }) => top)),
    bottom: Math.max(...kept.map(({ bottom }) => bottom)),
    left: Math.min(...kept.map(({ left }) => left)),
    right: Math.max(...kept.map(({ right }) => right)),
  };
}

/** Whether a component crosses the whole picture, and is thin or along an edge: ruled paper or a frame. */
function isLine({ label, top, bottom, left, right }, labels, height, width) {
  const crosses = (start, stop, first, last, across, along, at) => {
    const counts = [0, 0, 0]; // along the line: where it is at all, and at its two edges
    for (let k = first; k < last; k++) {
      let any = 0;
      for (let i = start; i < stop; i++) any ||= Number(at(i, k));
      counts[0] += any;
      counts[1] += Number(at(start, k));
      counts[2] += Number(at(stop - 1, k));
    }
    const [long, begin, end] = counts.map((number) => number > 0.8 * along);
    const thin = stop - start < 0.1 * Math.min(height, width);
    return (
      (long && counts[0] > 0.5 * Math.max(height, width) && thin) || (start < 2 && begin) || (stop > across - 2 && end)
    );
  };
  return (
    crosses(top, bottom, left, right, height, width, (y, x) => labels[y * width + x] === label) ||
    crosses(left, right, top, bottom, width, height, (x, y) => labels[y * width + x] === label)
  );
}

function normalisedStrokes(digit) {
  const scale = Math.max(digit.height, digit.width) / 20;
  if (scale < 2) return digit;
  const framed = (picture, margin) =>
    alongBoth(picture, (line) => [...Array(margin).fill(0), ...line, ...Array(margin).fill(0)]);
  const mask = framed(
    mapped(digit, (value) => Number(value > 0.5)),
    1,
  );
  const inside = alongBoth(mask, erosion(3));
  const area = mask.data.reduce((a, b) => a + b);
  const perimeter = area - inside.data.reduce((a, b) => a + b);
  const breadth = (2 * area) / perimeter / scale;
  const change = (Math.abs(1.95 - breadth) / 2) * scale;
  if (breadth < 1.3) return mapped(distances(framed(mask, Math.floor(change)), 1), (d) => Number(d <= change));
  return breadth > 3.2 ? mapped(distances(mask, 0), (d) => Number(d > change)) : digit;
}

function centred(given) {
  let digit = given;
  const scale = 20 / Math.max(given.height, given.width);
  if (scale !== 1) {
    const sides = [given.height, given.width].map((side) => Math.max(1, round(scale * side)));
    digit = mapped(resize(given, ...sides, scale < 1 ? KERNELS.box : KERNELS.cubic), (v) =>
      Math.min(Math.max(v, 0), 1),
    );
  }
  const { height, width, data } = digit;
  const sum = data.reduce((a, b) => a + b);
  const place = (side, of) => {
    const centre = data.reduce((total, value, i) => total + value * of(i), 0) / sum;
    return Math.min(Math.max(round(14 - centre), 0), 28 - side);
  };
  const [top, left] = [place(height, (i) => Math.floor(i / width)), place(width, (i) => i % width)];
  const result = new Uint8ClampedArray(28 * 28);
  for (const [i, value] of data.entries()) {
    result[(top + Math.floor(i / width)) * 28 + left + (i % width)] = round(255 * value);
  }
  return result;
}

/** Return a picture as a square, with black bars on both sides of its shorter one. */
function padded(picture) {
  const side = Math.max(picture.height, picture.width);
  const [top, left] = [picture.height, picture.width].map((length) => Math.floor((side - length) / 2));
  const result = grid(side, side);
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(y * picture.width, (y + 1) * picture.width);
    result.data.set(row, (y + top) * side + left);
  }
  return result;
}

/** Return the square in the middle of a picture, scaled to a number of channels: pixels 0-255, [side, side, C]. */
function croppedSquare(channels, side, number) {
  const whole = (value) => Math.min(Math.max(Math.floor(value + 0.5), 0), 255); // Pillow rounds after each step
  const [red, green = red, blue = red] = channels.map((channel) => mapped(channel, whole));
  const grey = mapped(red, (value, i) => whole(0.299 * value + 0.587 * green.data[i] + 0.114 * blue.data[i]));
  const { height, width } = red;
  const length = Math.min(height, width);
  const scaling = (size) => resampling(side, KERNELS.cubic, (size - length) / 2, length);
  const scaled = (number > 1 ? [red, green, blue] : [grey]).map((channel) => {
    const narrow = mapped(alongColumns(transposed(channel), scaling(width)), whole);
    return transposed(mapped(alongColumns(narrow, scaling(height)), whole)).data;
  });
  return Uint8Array.from({ length: side * side * number }, (_, i) => scaled[i % number][Math.floor(i / number)]);
}
