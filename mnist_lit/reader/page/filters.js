"use strict";
// Filters of pictures, as numpy, scipy and Pillow have them: functions from a line of values to another line.

// A picture has one channel: {data, height, width}, row by row.
const grid = (height, width, data = new Float32Array(height * width)) => ({ height, width, data });
const mapped = ({ height, width, data }, change) => grid(height, width, data.map(change));

/** Apply a filter to each column, and return the transposed result. */
function alongColumns({ height, width, data }, filter) {
  const column = new Float64Array(height);
  let result = grid(0, 0);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) column[y] = data[y * width + x];
    const line = filter(column);
    if (!x) result = grid(width, line.length);
    result.data.set(line, x * line.length);
  }
  return result;
}
const transposed = (picture) => alongColumns(picture, (line) => line);
const alongBoth = (picture, filter) => alongColumns(alongColumns(picture, filter), filter);

/** Correlation with weights, of which `before` stand before the centre; beyond the ends, `outside` tells the place. */
const correlate = (weights, before, outside) => (line) => {
  const longer = new Float64Array(line.length + weights.length - 1);
  for (let i = 0; i < longer.length; i++) {
    const place = i - before;
    longer[i] = line[place >= 0 && place < line.length ? place : outside(place, line.length)];
  }
  const result = new Float64Array(line.length);
  for (let i = 0; i < line.length; i++) {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * longer[i + k];
    result[i] = sum;
  }
  return result;
};
const nearest = (i, size) => Math.min(Math.max(i, 0), size - 1);
const mirrored = (i, size) => {
  const place = ((i % (2 * size)) + 2 * size) % (2 * size);
  return Math.min(place, 2 * size - 1 - place);
};
function gaussian(sigma) {
  const radius = Math.floor(4 * sigma + 0.5);
  const powers = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = powers.reduce((a, b) => a + b);
  return correlate(
    powers.map((power) => power / sum),
    radius,
    mirrored,
  );
}
const uniform = (size) => correlate(Array(size).fill(1 / size), Math.floor(size / 2), nearest);

/** The largest value of each window, or with `sign` -1 the smallest one. */
const extreme = (sign, before, after) => (line) => {
  const result = new Float64Array(line.length);
  for (let i = 0; i < line.length; i++) {
    const end = Math.min(i + after, line.length - 1);
    let found = line[i];
    for (let k = Math.max(i - before, 0); k <= end; k++) if (sign * line[k] > sign * found) found = line[k];
    result[i] = found;
  }
  return result;
};
const dilation = (size) => extreme(1, Math.floor((size - 1) / 2), Math.floor(size / 2));
const erosion = (size) => extreme(-1, Math.floor(size / 2), Math.floor((size - 1) / 2));

/** Means of `factor` values each. */
const reduction = (factor) => (line) => {
  const result = new Float64Array(Math.ceil(line.length / factor));
  return result.map((_, i) => mean(line.subarray(i * factor, (i + 1) * factor)));
};
/** More of the line at both ends, point-symmetric to its first and last value. */
const extrapolation = (margin) => (line) =>
  Float64Array.from({ length: line.length + 2 * margin }, (_, i) => {
    const place = i - margin;
    const last = line.length - 1;
    if (place < 0) return 2 * line[0] - line[Math.min(-place, last)];
    return place > last ? 2 * line[last] - line[Math.max(2 * last - place, 0)] : line[place];
  });

const KERNELS = {
  box: { radius: 0.5, weight: (x) => Number(x > -0.5 && x <= 0.5) },
  linear: { radius: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  cubic: {
    radius: 2,
    weight(signed) {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};
/** Resampling of `length` values from `start` on to `size` values, as Pillow has it. */
function resampling(size, { radius, weight }, start = 0, length = 0) {
  const taps = (count) => {
    const ratio = (length || count) / size;
    const stretch = Math.max(ratio, 1);
    const scale = 1 / stretch; // multiplied, not divided, as by Pillow: a kernel may end at a pixel
    return Array.from({ length: size }, (_, i) => {
      const centre = start + (i + 0.5) * ratio;
      const first = Math.max(0, Math.trunc(centre - radius * stretch + 0.5));
      const end = Math.min(count, Math.trunc(centre + radius * stretch + 0.5));
      const weights = Float64Array.from({ length: end - first }, (_, k) => weight((first + k - centre + 0.5) * scale));
      const sum = weights.reduce((a, b) => a + b);
      return { first, weights: weights.map((share) => share / sum) };
    });
  };
  let found = null; // the same for all lines of a picture
  return (line) => {
    found ??= taps(line.length);
    const result = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      const { first, weights } = found[i];
      for (let k = 0; k < weights.length; k++) result[i] += weights[k] * line[first + k];
    }
    return result;
  };
}
const resize = (picture, height, width, kernel) =>
  alongColumns(alongColumns(picture, resampling(height, kernel)), resampling(width, kernel));

/** The squared distance of each place to the nearest one where `line` is 0, given those along the other axis. */
function squaredDistances(line) {
  const centres = [];
  const starts = [];
  for (let i = 0; i < line.length; i++) {
    let start = -Infinity;
    while (centres.length) {
      const k = centres[centres.length - 1];
      start = (line[i] + i * i - line[k] - k * k) / (2 * (i - k));
      if (start > starts[starts.length - 1]) break;
      centres.pop();
      starts.pop();
    }
    starts.push(centres.length ? start : -Infinity);
    centres.push(i);
  }
  let k = 0;
  return line.map((_, i) => {
    while (k + 1 < starts.length && starts[k + 1] < i) k++;
    return (i - centres[k]) ** 2 + line[centres[k]];
  });
}
const distances = (mask, from) =>
  mapped(
    alongBoth(
      mapped(mask, (m) => (m === from ? 0 : 1e9)),
      squaredDistances,
    ),
    Math.sqrt,
  );

// ---- numbers

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const round = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // halves to even, as Python
function percentile(sorted, percent) {
  const place = ((sorted.length - 1) * percent) / 100;
  const low = sorted[Math.floor(place)];
  return low + (sorted[Math.ceil(place)] - low) * (place % 1);
}
