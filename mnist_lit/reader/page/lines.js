"use strict";
// Straight lines that are no ink of a digit, step by step as in the reader's `lines.py`, which has the reasons.

/** Return the pixels of lines in a mask, without those of ink that crosses them, or null if there are none;
 *  and whether it is certain that they are no digit. */
function findLines(mask) {
  const { height, width } = mask;
  const down = transposed(alongColumns(mask, runLengths));
  const across = alongColumns(transposed(mask), runLengths);
  const widths = down.data.map((length, i) => Math.min(length, across.data[i])).filter((length) => length);
  const stroke = percentile(widths.sort(), 50);
  const pixels = ([rows, columns]) => {
    const [along, upright] = [maxRuns(rows, height, width).data, transposed(maxRuns(columns, width, height)).data];
    const lines = mapped(mask, (m, i) =>
      Number(m && (down.data[i] <= along[i] || across.data[i] <= upright[i] || (along[i] && upright[i]))),
    );
    const size = 2 * Math.max(...[...rows, ...columns].map(reachOf)) + 3;
    const rest = mapped(mask, (m, i) => m * (1 - lines.data[i]));
    const closed = alongBoth(alongBoth(rest, dilation(size)), erosion(size));
    return mapped(lines, (m, i) => m * (1 - closed.data[i]));
  };
  const found = [horizontalLines(mask, stroke), horizontalLines(transposed(mask), stroke)];
  const table = tableOf(found, [width, height]);
  let lines = table ?? [through(found[0], width), through(found[1], height)];
  if (!lines.flat().length) return { lines: null };
  const drawn = pixels(lines);
  const box = largest(
    mapped(mask, (m, i) => m * (1 - drawn.data[i])),
    3 * stroke,
  );
  if (table) return { lines: drawn, certain: Boolean(box) || lines.flat().length > 5 };
  if (!box) return { lines: null };
  const { top, bottom, left, right } = box;
  const [tall, wide] = [0.03 * height, 0.03 * width];
  const free = top >= tall && bottom <= 0.97 * height && left >= wide && right <= 0.97 * width;
  const beyond = (some, start, stop, margin) =>
    free || some.length > 1 ? some.filter((line) => line.start + margin <= start && stop <= line.stop - margin) : [];
  lines = [beyond(lines[0], left, right, wide), beyond(lines[1], top, bottom, tall)];
  const place = lines[1].length === 1 ? middle(lines[1][0]) : Number.NaN;
  if (left - wide <= place && place <= right + wide) lines[1] = [];
  return { lines: lines.flat().length ? pixels(lines) : null, certain: true };
}

const reachOf = ({ thickness }) => Math.floor(thickness) + 1;
const middle = (line) => line.row + (line.slope * (line.start + line.stop)) / 2;
const through = (lines, side) => lines.filter((line) => line.start <= 0.05 * side + 1 && line.stop >= 0.95 * side - 1);

/** Return the rows and columns of a frame or table, or null. */
function tableOf(found, sides) {
  let lines = found;
  while (Math.min(lines[0].length, lines[1].length) >= 2) {
    const lacks = lines.map((some, k) => {
      const places = lines[1 - k].map(middle);
      const [first, last] = [Math.min(...places), Math.max(...places)];
      return some.map((line) => Math.max(line.start - first, last - line.stop) / sides[k]);
    });
    const worst = Math.max(...lacks.flat());
    if (worst <= 0.05) return lines;
    lines = lines.map((some, k) => some.filter((_, i) => lacks[k][i] < worst));
  }
  return null;
}

/** The largest component of ink, or null if it is too small for a digit. */
function largest(ink, minSize) {
  const box = componentsOf(labelled(ink), ink).reduce((best, other) => (best?.ink >= other.ink ? best : other), null);
  return box && Math.max(box.bottom - box.top, box.right - box.left) >= minSize ? box : null;
}

/** Of each pixel of a line of pixels, the length of the run that it is in. */
function runLengths(line) {
  const result = new Float64Array(line.length);
  for (let start = 0; start < line.length; start++) {
    let stop = start;
    while (stop < line.length && line[stop]) stop++;
    result.fill(stop - start, start, stop);
    if (stop > start) start = stop;
  }
  return result;
}

/** A picture that is 0, and along lines the length of the vertical runs that belong to them. */
function maxRuns(lines, height, width) {
  const result = grid(height, width);
  for (const { start, stop, row, slope, thickness } of lines) {
    const reach = reachOf({ thickness });
    for (let x = Math.max(start - reach, 0); x < Math.min(stop + reach, width); x++) {
      const centre = round(row + slope * x);
      const [first, last] = [Math.max(centre - reach, 0), Math.min(centre + reach, height - 1)];
      for (let y = first; y <= last; y++) result.data[y * width + x] = 1.5 * thickness + 1;
    }
  }
  return result;
}

/** Whether there is ink along a line, be it of the line or of what crosses it. */
function isContinuous({ start, stop, row, slope }, { height, width, data }) {
  let found = 0;
  for (let x = start; x < stop; x++) {
    const centre = round(row + slope * x);
    found += Number([-1, 0, 1].some((k) => data[Math.min(Math.max(centre + k, 0), height - 1) * width + x]));
  }
  return found >= 0.9 * (stop - start);
}

/** Lines that are nearly horizontal, by a Hough transform of the middles of thin vertical runs. */
function horizontalLines(mask, stroke) {
  const { height, width, data } = mask;
  let points = [];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const start = y;
      while (y < height && data[y * width + x]) y++;
      if (y > start && y - start <= 2.5 * stroke + 1)
        points.push({ x, y: start + (y - start - 1) / 2, thickness: y - start });
    }
  }
  const number = 2 * round(0.05 * width) + 1;
  const slopes = Array.from({ length: number }, (_, i) => (number > 1 ? -0.1 + (0.2 / (number - 1)) * i : -0.1));
  const offset = round(0.1 * width) + 2;
  const size = height + 2 * offset;
  const counts = new Int32Array(number * size);
  const vote = (some, weight) => {
    for (let k = 0; k < number; k++) {
      for (const { x, y } of some) counts[k * size + round(y - slopes[k] * x) + offset] += weight;
    }
  };
  vote(points, 1);
  const lines = [];
  for (;;) {
    let [most, best] = [0, 0];
    for (let i = 1; i < counts.length - 1; i++) {
      const sum = counts[i - 1] + counts[i] + counts[i + 1];
      if (sum > most) [most, best] = [sum, i];
    }
    if (most < 0.2 * width || !most) return lines;
    let slope = slopes[Math.floor(best / size)];
    let row = (best % size) - offset;
    const within = (distance) => points.filter(({ x, y }) => Math.abs(y - slope * x - row) <= distance);
    const core = within(1.5);
    const thickness = percentile(Float64Array.from(core, (point) => point.thickness).sort(), 50);
    const [x0, y0] = [mean(core.map(({ x }) => x)), mean(core.map(({ y }) => y))];
    const squares = core.reduce((sum, { x }) => sum + (x - x0) ** 2, 0);
    slope = core.reduce((sum, { x, y }) => sum + (x - x0) * y, 0) / Math.max(squares, 1);
    row = y0 - slope * x0;
    const near = new Set(within(1.5 + thickness / 2));
    const columns = Array.from(near, ({ x }) => x);
    const [start, stop] = [columns[0], columns[columns.length - 1] + 1];
    const line = { start, stop, row, slope, thickness };
    const length = stop - start;
    if (near.size >= 0.5 * length && length >= 10 * thickness && isContinuous(line, mask)) lines.push(line);
    vote(near, -1);
    points = points.filter((point) => !near.has(point));
  }
}
