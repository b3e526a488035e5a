"use strict";
// The network: a function for each kind of operation. Activations are {data, shape: [height, width, channels]}.

const OPERATIONS = {
  conv2d({ data, shape: [height, width, channels] }, { weight, bias, stride, padding }) {
    const [tall, wide, , outputs] = weight.shape;
    const rows = Math.floor((height + 2 * padding[0] - tall) / stride[0]) + 1;
    const columns = Math.floor((width + 2 * padding[1] - wide) / stride[1]) + 1;
    const sums = new Float64Array(outputs);
    const result = new Float32Array(rows * columns * outputs);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        sums.fill(0);
        if (bias) sums.set(bias.data);
        for (let tap = 0; tap < tall * wide; tap++) {
          const row = y * stride[0] - padding[0] + Math.floor(tap / wide);
          const column = x * stride[1] - padding[1] + (tap % wide);
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          for (let channel = 0; channel < channels; channel++) {
            const value = data[(row * width + column) * channels + channel];
            if (value === 0) continue; // after ReLU, many are
            const first = (tap * channels + channel) * outputs;
            for (let output = 0; output < outputs; output++) sums[output] += value * weight.data[first + output];
          }
        }
        result.set(sums, (y * columns + x) * outputs);
      }
    }
    return { data: result, shape: [rows, columns, outputs] };
  },
  max_pool2d({ data, shape: [height, width, channels] }, { kernel, stride }) {
    const rows = Math.floor((height - kernel[0]) / stride[0]) + 1;
    const columns = Math.floor((width - kernel[1]) / stride[1]) + 1;
    const result = new Float32Array(rows * columns * channels).fill(-Infinity);
    for (let place = 0; place < result.length; place++) {
      const channel = place % channels;
      const x = Math.floor(place / channels) % columns;
      const y = Math.floor(place / channels / columns);
      for (let tap = 0; tap < kernel[0] * kernel[1]; tap++) {
        const row = y * stride[0] + Math.floor(tap / kernel[1]);
        const column = x * stride[1] + (tap % kernel[1]);
        result[place] = Math.max(result[place], data[(row * width + column) * channels + channel]);
      }
    }
    return { data: result, shape: [rows, columns, channels] };
  },
  mean({ data, shape: [height, width, channels] }) {
    const sums = new Float64Array(channels);
    for (const [i, value] of data.entries()) sums[i % channels] += value;
    return { data: Float32Array.from(sums, (sum) => sum / (height * width)), shape: [channels] };
  },
  scale: ({ data, shape }, { weight, bias }) => {
    const channels = shape[shape.length - 1];
    return { data: data.map((value, i) => value * weight.data[i % channels] + bias.data[i % channels]), shape };
  },
  relu: ({ data, shape }) => ({ data: data.map((value) => Math.max(value, 0)), shape }),
  gelu: ({ data, shape }) => ({ data: data.map((value) => (value * (1 + erf(value / Math.SQRT2))) / 2), shape }),
  flip({ data, shape }) {
    const [, width, channels] = shape;
    const mirrored = (i) => {
      const x = Math.floor(i / channels) % width;
      return i + (width - 1 - 2 * x) * channels;
    };
    return { data: data.map((_, i) => data[mirrored(i)]), shape };
  },
  pad({ data, shape: [height, width, channels] }, { padding: [left, right, top, bottom], reflect }) {
    const [rows, columns] = [height + top + bottom, width + left + right]; // negative numbers crop
    const inside = (i, size) => (reflect ? size - 1 - Math.abs(size - 1 - Math.abs(i)) : i);
    const result = new Float32Array(rows * columns * channels);
    for (let place = 0; place < rows * columns; place++) {
      const y = inside(Math.floor(place / columns) - top, height);
      const x = inside((place % columns) - left, width);
      if (y < 0 || y >= height || x < 0 || x >= width) continue; // 0
      const start = (y * width + x) * channels;
      result.set(data.subarray(start, start + channels), place * channels);
    }
    return { data: result, shape: [rows, columns, channels] };
  },
  add: (one, other) => ({ data: one.data.map((value, i) => value + other.data[i]), shape: one.shape }),
  multiply: ({ data, shape }, { by }) => ({ data: data.map((value) => value * by), shape }),
  flatten({ data, shape: [height, width = 1, channels = 1] }) {
    const area = height * width; // torch has the channels first
    const place = (i) => (i % area) * channels + Math.floor(i / area);
    return { data: Float32Array.from(data, (_, i) => data[place(i)]), shape: [data.length] };
  },
  linear({ data }, { weight, bias }) {
    const [outputs, inputs] = weight.shape;
    const result = new Float32Array(outputs);
    for (let output = 0; output < outputs; output++) {
      let sum = bias ? bias.data[output] : 0;
      for (let i = 0; i < inputs; i++) sum += data[i] * weight.data[output * inputs + i];
      result[output] = sum;
    }
    return { data: result, shape: [outputs] };
  },
  log_softmax({ data, shape }) {
    const largest = Math.max(...data);
    const total = Math.log(data.reduce((sum, value) => sum + Math.exp(value - largest), 0));
    return { data: data.map((value) => value - largest - total), shape };
  },
  softmax({ data, shape }) {
    const largest = Math.max(...data);
    const powers = data.map((value) => Math.exp(value - largest));
    const sum = powers.reduce((a, b) => a + b);
    return { data: powers.map((value) => value / sum), shape };
  },
};

/** Return the error function, with an error of at most 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

/** Decode the weights of a model, float32 in base64, in place. */
function decode(model) {
  const bytes = Uint8Array.from(atob(model.weights), (letter) => letter.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer);
  for (const operation of model.operations) {
    for (const name of ["weight", "bias"]) {
      if (!operation[name]) continue;
      const { start, shape } = operation[name];
      operation[name] = { data: numbers.subarray(start, start + shape.reduce((a, b) => a * b)), shape };
    }
  }
  return model;
}

/** Return the activations of all operations by their names, `probabilities` among them; pixels 0-255, [H, W, C]. */
function run(model, pixels) {
  const [channels, height, width] = model.shape;
  const values = { pixels: { data: Float32Array.from(pixels), shape: [height, width, channels] } };
  for (const operation of model.operations) {
    values[operation.name] = OPERATIONS[operation.kind](...operation.inputs.map((name) => values[name]), operation);
  }
  return values;
}
