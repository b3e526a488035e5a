"use strict";
// Drawing, pictures, and what is shown. The model is what `export` has filled in.

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [node.id, node]));
const model = JSON.parse(element.model.textContent);
const hasNetwork = "operations" in model;
if (hasNetwork) decode(model);
if (model.novelty) decode(model.novelty);
const drawable = model.kind !== "photographs";
const cropped = !drawable && model.fit !== "pad"; // to the square in the middle of a picture
const [CHANNELS, HEIGHT, WIDTH] = model.shape ?? [1, 28, 28];

const { paper } = element;
const pen = paper.getContext("2d", { willReadFrequently: true });
const dark = matchMedia("(prefers-color-scheme: dark)");
const STROKE = paper.width / 16; // as wide as MNIST's strokes if a digit fills two thirds of the paper
const REDUCED = 512; // pixels of a picture's longer side, or of the shorter one if it is cropped: at least
const MAX_PIXELS = 40_000_000; // 160 MB

let strokes = []; // each a list of points, in pixels of the paper
let picture = null; // {name, view, channels}: an opened one instead of the strokes
let failure = ""; // the reason why a picture was not opened
let waiting = false; // for `update`
const past = []; // states that undo returns to
const begun = new Map(); // the stroke of each pointer that is down: a hand may rest beside the pen

// ---- drawing

/** Change what is on the paper, so that it can be undone. */
function change(newStrokes, newPicture, newFailure = "") {
  past.push({ strokes, picture });
  [strokes, picture, failure] = [newStrokes, newPicture, newFailure];
  render();
}

function undo() {
  ({ strokes, picture } = past.pop() ?? { strokes: [], picture: null });
  failure = "";
  render();
}

function render() {
  const [background, ink] = dark.matches && !picture ? ["#1e1e1e", "white"] : ["white", "black"];
  pen.fillStyle = background;
  pen.fillRect(0, 0, paper.width, paper.height);
  if (picture) {
    const scale = Math.min(paper.width / picture.view.width, paper.height / picture.view.height);
    const [width, height] = [scale * picture.view.width, scale * picture.view.height];
    pen.drawImage(picture.view, (paper.width - width) / 2, (paper.height - height) / 2, width, height);
    if (cropped) outlineSquare(Math.min(width, height));
  }
  Object.assign(pen, { lineWidth: STROKE, lineCap: "round", lineJoin: "round", strokeStyle: ink });
  for (const points of strokes) {
    pen.beginPath();
    pen.moveTo(points[0][0] + 0.01, points[0][1]); // so that a single point is a line too
    for (const [x, y] of points) pen.lineTo(x, y);
    pen.stroke();
  }
  if (!waiting) requestAnimationFrame(update);
  waiting = true;
}

/** Outline the square in the middle of the paper, which the network sees, and darken what is beside it. */
function outlineSquare(side) {
  const [left, top] = [(paper.width - side) / 2, (paper.height - side) / 2];
  pen.fillStyle = "rgb(0 0 0 / 50%)";
  pen.fillRect(0, 0, paper.width, top);
  pen.fillRect(0, top + side, paper.width, top);
  pen.fillRect(0, top, left, side);
  pen.fillRect(left + side, top, left, side);
  Object.assign(pen, { lineWidth: 2, strokeStyle: "#4c9aff" });
  pen.strokeRect(left + 1, top + 1, side - 2, side - 2);
}

function pointOf(event) {
  const { left, top, width, height } = paper.getBoundingClientRect();
  return [((event.clientX - left) / width) * paper.width, ((event.clientY - top) / height) * paper.height];
}

if (drawable) {
  paper.classList.add("drawable");
  paper.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    paper.setPointerCapture(event.pointerId);
    element.answer.setAttribute("aria-busy", "true"); // read when the stroke is finished
    const stroke = [pointOf(event)];
    begun.set(event.pointerId, stroke);
    change([...strokes, stroke], null);
  });
  paper.addEventListener("pointermove", (event) => {
    const stroke = begun.get(event.pointerId);
    if (!stroke) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    stroke.push(...(moves.length ? moves : [event]).map(pointOf));
    render();
  });
  paper.addEventListener("lostpointercapture", ({ pointerId }) => {
    begun.delete(pointerId);
    element.answer.setAttribute("aria-busy", "false");
  });
}
element.undo.addEventListener("click", undo);
element.clear.addEventListener("click", () => change([], null));
document.addEventListener("keydown", (event) => {
  if (event.shiftKey || event.altKey) return;
  const control = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && !control) change([], null);
  if (event.key.toLowerCase() === "z" && control) {
    event.preventDefault();
    undo();
  }
});

// ---- pictures

async function openPicture(file) {
  const before = past.length;
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return change([], null, `${file.name}: not a picture that this browser can open`);
  }
  if (past.length !== before) return bitmap.close(); // something else was drawn or opened while it was decoded
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    change([], null, `${file.name}: ${width} x ${height} pixels are too many: make it smaller`);
  } else {
    const view = reducedView(bitmap);
    const image = view.getContext("2d").getImageData(0, 0, view.width, view.height);
    change([], { name: file.name, view, channels: channelsOf(image) });
  }
  bitmap.close();
}

/** Return a canvas with a picture, reduced. If it is cropped, one more square on each side is kept, to be shown. */
function reducedView(bitmap) {
  const side = (cropped ? Math.min : Math.max)(bitmap.width, bitmap.height);
  const factor = Math.max(1, Math.floor(side / REDUCED));
  const margins = [bitmap.width, bitmap.height].map((length) =>
    cropped ? Math.max(0, Math.floor((length - 3 * side) / 2)) : 0,
  );
  let [width, height] = [bitmap.width - 2 * margins[0], bitmap.height - 2 * margins[1]];
  let source = [bitmap, ...margins, width, height];
  const goal = [Math.ceil(width / factor), Math.ceil(height / factor)];
  for (;;) {
    // Browsers interpolate between four pixels: more than a factor of two at once would skip some.
    [width, height] = [Math.max(goal[0], Math.ceil(width / 2)), Math.max(goal[1], Math.ceil(height / 2))];
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(...source, 0, 0, width, height);
    if (width === goal[0] && height === goal[1]) return canvas;
    source = [canvas, 0, 0, width, height];
  }
}

function plane({ data, width, height }, channel) {
  const result = grid(height, width);
  for (let i = 0; i < result.data.length; i++) result.data[i] = data[4 * i + channel];
  return result;
}

/** Return the channels of an image, one if it is grey. */
function channelsOf(image) {
  const [red, green, blue, alpha] = [0, 1, 2, 3].map((channel) => plane(image, channel));
  const opaque = alpha.data.every((value) => value === 255);
  const colours = opaque ? [red, green, blue] : composite([red, green, blue], alpha.data);
  const [first, ...others] = colours;
  const grey = others.every(({ data }) => data.every((value, i) => value === first.data[i]));
  return grey ? [first] : colours;
}

/** Put a background behind a transparent image. Ink alone gets black or white, whichever contrasts more. */
function composite(colours, alpha) {
  const least = 0.9 * alpha.reduce((a, b) => Math.max(a, b), 25.5);
  const visible = [...alpha.keys()].filter((i) => alpha[i] >= least);
  if (!visible.length) return colours.map((colour) => mapped(colour, () => 255));
  const tones = visible.map((i) => mean(colours.map(({ data }) => data[i])));
  const tone = mean(tones);
  const inkAlone = mean(tones.map((value) => (value - tone) ** 2)) < 20 ** 2;
  return colours.map((colour) => {
    const median = percentile(Float32Array.from(visible, (i) => colour.data[i]).sort(), 50);
    const behind = inkAlone ? 255 * Number(tone <= 127) : median;
    return mapped(colour, (value, i) => behind + ((value - behind) * alpha[i]) / 255);
  });
}

for (const input of document.querySelectorAll("input")) {
  input.addEventListener("change", () => {
    if (input.files[0]) openPicture(input.files[0]);
    input.value = ""; // the same file may be opened again
  });
}
document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files[0]) openPicture(clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) openPicture(event.dataTransfer.files[0]);
});

// ---- what is shown

function update() {
  waiting = false;
  if (!picture && !strokes.length) return show("", failure);
  const channels = picture?.channels ?? [plane(pen.getImageData(0, 0, paper.width, paper.height), 0)];
  try {
    const squares = drawable || cropped ? channels : channels.map(padded);
    const pixels = drawable ? asMNIST(squares) : croppedSquare(squares, HEIGHT, CHANNELS);
    if (!hasNetwork) return show("", "", null, pixels);
    const values = run(model, pixels);
    const novel = model.novelty && run(model.novelty, pixels).probabilities.data.at(-1) >= model.novelty.least;
    const [name, text] = answerOf(values.probabilities.data);
    if (novel) show("?", `perhaps no digit; if it is one: ${name}, ${text}`, values, pixels);
    else show(name, text, values, pixels);
  } catch (error) {
    if (!(error instanceof NoDigitError)) throw error;
    show("", error.message);
  }
}

const percent = (probability, over = "over ") =>
  probability > 0.9995 ? `${over}99.9%` : `${(100 * probability).toFixed(1)}%`;

/** Return the class, and how sure the network is, in the words of `predict`. */
function answerOf(probabilities) {
  const [best, second] = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const other = `${model.classes[second]}, ${percent(probabilities[second])}`;
  const sure = probabilities[best] >= model.unsure;
  return [model.classes[best], percent(probabilities[best]) + (sure ? "" : ` (unsure: or ${other})`)];
}

function show(className, text, values = null, pixels = null) {
  element.class.textContent = className;
  element.confidence.textContent = text;
  for (const [k, row] of [...element.bars.children].entries()) {
    const probability = values ? values.probabilities.data[k] : 0;
    row.children[1].style.backgroundSize = `${100 * probability}% 100%`;
    row.children[2].textContent = values ? percent(probability, ">") : "–";
  }
  paint(element.seen, WIDTH, HEIGHT, (x, y) => {
    const pixel = CHANNELS * (y * WIDTH + x);
    return [0, 1, 2].map((k) => (pixels ? pixels[pixel + (k % CHANNELS)] : 0));
  });
  for (const { name, shape, canvas } of blocks) drawMaps(canvas, shape, values?.[name].data);
}

function paint(canvas, width, height, colourOf) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colourOf(i % width, Math.floor(i / width)), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const GAP = [110, 118, 130];
const MAX_MAP = 64; // pixels of a drawn map's side: of larger ones, every second pixel is drawn, or every third, …

/** Draw the maps of a block side by side, the brighter the more active, relative to the block's largest activation. */
function drawMaps(canvas, [height, width, channels], data) {
  const step = Math.ceil(Math.max(height, width) / MAX_MAP);
  const gap = height * width > 1 ? 1 : 0;
  const [tall, wide] = [height, width].map((side) => Math.ceil(side / step) + gap);
  const rows = Math.max(1, Math.round(Math.sqrt(channels / 2))); // twice as wide as tall, or a little wider
  const columns = Math.ceil(channels / ([rows, rows - 1, rows - 2].find((number) => channels % number === 0) ?? rows));
  const largest = data?.reduce((a, b) => Math.max(a, b), 0) || 1;
  paint(canvas, columns * wide - gap, Math.ceil(channels / columns) * tall - gap, (x, y) => {
    const channel = Math.floor(y / tall) * columns + Math.floor(x / wide);
    const [column, row] = [x % wide, y % tall];
    if (column === wide - gap || row === tall - gap || channel >= channels) return GAP;
    const activation = data ? data[(row * step * width + column * step) * channels + channel] : 0;
    const value = Math.max(0, activation / largest);
    return [255 * value ** 0.9, 235 * value, 40 + 120 * value * (1 - value) + 130 * value ** 3];
  });
}

function add(tag, parent, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

for (const name of model.classes ?? []) {
  const row = add("li", element.bars);
  add("span", row, { textContent: name });
  add("div", row, { className: "bar" });
  add("span", row);
}
const blocks = (model.blocks ?? []).map((block) => {
  const [height, width, channels] = block.shape;
  const what = `${channels} feature maps of ${width}×${height}`;
  const figure = add("figure", element.maps);
  add("h2", figure, { textContent: block.title });
  const canvas = add("canvas", figure);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${block.title}: ${what}`);
  add("figcaption", figure, { textContent: what });
  return { ...block, canvas };
});
element.size.textContent = `${WIDTH}×${HEIGHT} pixels`;
element.seen.setAttribute("aria-label", `the picture that the network sees, ${WIDTH}×${HEIGHT} pixels`);
document.title = drawable ? "Draw a digit" : "Show a picture";
element.title.textContent = document.title;
paper.setAttribute("aria-label", drawable ? "paper to draw a digit on" : "the picture");
element.hint.textContent = drawable
  ? "Draw one digit, large, or open a picture of one."
  : `Open a picture: ${cropped ? "the square in its middle" : "all of it, with black bars,"} is used.`;
element.calibration.textContent =
  model.calibration ?? "This page has no network: python train.py export --output FILE.html";
element.about.textContent = model.about ?? "";
dark.addEventListener("change", render);
render();
