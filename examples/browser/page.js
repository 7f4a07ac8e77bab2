import { chart } from "./chart.js";
import { Learner, decoded } from "./learner.js";

const NAMES = ["gevb", "dfa"];
const MILLISECONDS = 4; // of learning between two pictures
const find = (selector, within = document) => within.querySelector(selector);
const [draw, seen] = ["#draw", "#seen"].map((name) => find(name).getContext("2d", { willReadFrequently: true }));

let running = false, wantsReset = false, changed = true;
let data, learners, cards, order, curves, steps, spent;
let image = new Float32Array(64), isExample = false;

// Learning: the same batches for both, in an order that is new in each epoch.

function shuffled(count, epoch) {
  let seed = epoch + 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647; // Lehmer's generator
  for (let n = 0; n < 9; n++) random();
  const order = Array.from({ length: count }, (_, n) => n);
  for (let n = count - 1; n > 0; n--) {
    const other = Math.floor(random() * (n + 1));
    [order[n], order[other]] = [order[other], order[n]];
  }
  return order;
}

async function step() {
  const { x, y } = data.train;
  const place = steps % stepsInEpoch();
  if (place === 0) order = shuffled(y.length, steps / stepsInEpoch());
  const chosen = order.slice(place * data.batch, (place + 1) * data.batch);
  const images = new Float32Array(64 * data.batch);
  chosen.forEach((n, at) => images.set(x.subarray(64 * n, 64 * n + 64), 64 * at));
  const labels = Int32Array.from(chosen, (n) => y[n]);
  const start = performance.now();
  for (const name of NAMES) {
    learners[name].learningRate = learningRate();
    const loss = await learners[name].train(images, labels);
    const before = curves.loss[name].at(-1)?.[1] ?? loss;
    extend(curves.loss[name], 0.95 * before + 0.05 * loss);
  }
  const took = (performance.now() - start) / NAMES.length;
  spent = steps ? 0.95 * spent + 0.05 * took : took;
  steps += 1;
  if (steps % Math.round(stepsInEpoch() / 2) === 0) await assess();
  changed = true;
}

const stepsInEpoch = () => Math.floor(data.train.y.length / data.batch);
const learningRate = () => 10 ** find("#rate").value;

/** Accuracy on the held-out digits. */
async function assess() {
  const { x, y } = data.test;
  for (const name of NAMES) {
    let right = 0;
    for (let n = 0; n < y.length; n += data.batch) {
      const answers = await learners[name].answer(x.subarray(64 * n, 64 * (n + data.batch)));
      right += answers.filter((logits, at) => best(logits) === y[n + at]).length;
    }
    extend(curves.accuracy[name], (100 * right) / y.length);
    find(".percent", cards[name]).textContent = `${((100 * right) / y.length).toFixed(1)} %`;
  }
}

function extend(curve, value) {
  curve.push([steps / stepsInEpoch(), value]);
  if (curve.length > 2000) curve.splice(0, curve.length, ...curve.filter((_, n) => n % 2));
}

const best = (logits) => logits.indexOf(Math.max(...logits));

async function reset() {
  steps = spent = 0;
  for (const name of NAMES) learners[name].reset();
  curves = { loss: { gevb: [], dfa: [] }, accuracy: { gevb: [], dfa: [] } };
  await assess();
}

// Drawing: the data set's digits are 32 x 32 pixels of ink, counted in blocks of 4 x 4.

function read() {
  const { width } = draw.canvas;
  const ink = draw.getImageData(0, 0, width, width).data;
  const box = { left: width, top: width, right: 0, bottom: 0 };
  for (let n = 0; n < width * width; n++) {
    if (ink[4 * n] < 128) continue;
    const [x, y] = [n % width, Math.floor(n / width)];
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x + 1);
    box.top = Math.min(box.top, y);
    box.bottom = Math.max(box.bottom, y + 1);
  }
  image = new Float32Array(64);
  if (box.right) {
    // As high as the picture, as the data set's are, and in its middle.
    const size = Math.max(box.bottom - box.top, box.right - box.left);
    const small = new OffscreenCanvas(32, 32).getContext("2d");
    small.imageSmoothingQuality = "high";
    const [x, y] = [(box.left + box.right - size) / 2, (box.top + box.bottom - size) / 2];
    small.drawImage(draw.canvas, x, y, size, size, 0, 0, 32, 32);
    small.getImageData(0, 0, 32, 32).data.forEach((value, n) => {
      if (n % 4 || value < 128) return;
      const [column, row] = [(n / 4) % 32, Math.floor(n / 128)];
      image[8 * Math.floor(row / 4) + Math.floor(column / 4)] += 1;
    });
  }
  changed = true;
}

function clear() {
  draw.fillStyle = "black";
  draw.fillRect(0, 0, draw.canvas.width, draw.canvas.width);
  isExample = false;
  read();
}

function pen(event) {
  if (!event.buttons) return;
  const { left, top, width } = draw.canvas.getBoundingClientRect();
  const scale = draw.canvas.width / width;
  const at = [(event.clientX - left) * scale, (event.clientY - top) * scale];
  Object.assign(draw, { strokeStyle: "white", lineWidth: 58, lineCap: "round", lineJoin: "round" });
  draw.beginPath();
  draw.moveTo(...(event.type === "pointermove" ? pen.last ?? at : at));
  draw.lineTo(...at);
  draw.stroke();
  pen.last = at;
  read();
}

function example() {
  const n = Math.floor(Math.random() * data.test.y.length);
  show(data.test.x.subarray(64 * n, 64 * n + 64));
}

/** A digit of the data set in the place of a drawing. */
function show(pixels) {
  image = Float32Array.from(pixels);
  const side = draw.canvas.width / 8;
  image.forEach((value, n) => {
    draw.fillStyle = `rgb(${Array(3).fill((255 * value) / 16)})`;
    draw.fillRect(side * (n % 8), side * Math.floor(n / 8), side, side);
  });
  isExample = true;
  changed = true;
}

// Pictures.

async function picture() {
  image.forEach((value, n) => {
    seen.fillStyle = `rgb(${Array(3).fill((255 * value) / 16)})`;
    seen.fillRect(n % 8, Math.floor(n / 8), 1, 1);
  });
  for (const name of NAMES) {
    const [logits] = await learners[name].answer(image);
    const highest = Math.max(...logits);
    const powers = Array.from(logits, (z) => Math.exp(z - highest));
    const total = powers.reduce((a, b) => a + b);
    cards[name].querySelectorAll(".answers li").forEach((bar, digit) => {
      bar.style.setProperty("--p", powers[digit] / total);
      bar.classList.toggle("best", digit === best(logits));
    });
    const layers = cards[name].querySelectorAll(".gates");
    learners[name].gates(image).forEach((open, layer) => {
      open.forEach((isOpen, unit) => layers[layer].children[unit].classList.toggle("open", isOpen));
    });
  }
  const series = (curves) =>
    NAMES.map((name) => ({ points: curves[name], colour: getComputedStyle(find("h2", cards[name])).color }));
  chart(find("#accuracy"), series(curves.accuracy), 100, " %");
  const losses = NAMES.flatMap((name) => curves.loss[name].map((point) => point[1]));
  chart(find("#loss"), series(curves.loss), Math.max(2, Math.ceil(Math.max(...losses))));
  const time = steps ? `, ${spent.toFixed(1)} ms a step` : "";
  find("#status").textContent = `Epoch ${(steps / stepsInEpoch()).toFixed(1)}${time}`;
}

/** One frame; all that the runtime is asked is asked here, one after the other. */
async function frame() {
  if (wantsReset) {
    wantsReset = false;
    await reset();
    changed = true;
  }
  if (running) {
    const end = performance.now() + MILLISECONDS;
    while (performance.now() < end) await step();
  }
  if (changed) {
    changed = false;
    await picture();
  }
  requestAnimationFrame(frame);
}

async function load() {
  data = await (await fetch("digits.json")).json();
  for (const part of [data.train, data.test]) for (const name of ["x", "y"]) part[name] = decoded(part[name]);
  learners = {};
  cards = {};
  for (const name of NAMES) {
    learners[name] = await Learner.load(name, data.networks[name], data.batch);
    cards[name] = find(`#${name}`);
    cards[name].append(find("#network").content.cloneNode(true));
    for (let digit = 0; digit < 10; digit++) find(".answers", cards[name]).append(element("li", digit));
    learners[name].gates(image).forEach((open, layer) => {
      cards[name].querySelectorAll(".gates")[layer].append(...open.map(() => element("i")));
    });
  }
  await reset();
  show(data.test.x.subarray(0, 64));
  for (const name of ["run", "reset", "example"]) find(`#${name}`).disabled = false;
  frame();
}

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

find("#run").onclick = () => {
  running = !running;
  find("#run").textContent = running ? "Pause" : "Start";
};
find("#reset").onclick = () => (wantsReset = true);
find("#rate").oninput = () => {
  const shown = (find("#rate-shown").textContent = learningRate().toPrecision(2));
  find("#rate").setAttribute("aria-valuetext", shown);
};
find("#clear").onclick = clear;
find("#example").onclick = example;
draw.canvas.onpointerdown = (event) => {
  draw.canvas.setPointerCapture(event.pointerId);
  if (isExample) clear();
  pen(event);
};
draw.canvas.onpointermove = pen;
addEventListener("resize", () => (changed = true));

load().catch((error) => {
  find("#status").textContent = `The page could not be loaded: ${error.message}`;
  console.error(error);
});
