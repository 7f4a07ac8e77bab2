// A training step, an ONNX graph, and the state it goes on from.
import * as ort from "./ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array };

export function decoded({ type, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return new ARRAYS[type](bytes.buffer);
}

export class Learner {
  static async load(name, { hidden, state }, batch) {
    const learner = new Learner();
    learner.session = await ort.InferenceSession.create(`${name}.onnx`);
    Object.assign(learner, { hidden, initial: state, batch });
    learner.reset();
    return learner;
  }

  reset() {
    this.state = {};
    for (const [name, value] of Object.entries(this.initial)) {
      this.state[name] = new ort.Tensor(value.type, decoded(value), value.dims);
    }
  }

  set learningRate(rate) {
    this.state.optimizer_learning_rate = new ort.Tensor("float32", [rate], []);
  }

  run(x, y) {
    const { batch } = this;
    return this.session.run({
      ...this.state,
      x: new ort.Tensor("float32", x, [batch, 8, 8, 1]),
      y: new ort.Tensor("int32", y, [batch]),
      sample_weight: new ort.Tensor("float32", new Float32Array(batch).fill(1), [batch]),
    });
  }

  /** One step; the loss before it. */
  async train(x, y) {
    const found = await this.run(x, y);
    for (const name in this.state) this.state[name] = found[`${name}_new`];
    return found.loss.data[0];
  }

  /** The logits of up to a batch of images: a step whose new state is forgotten. */
  async answer(images) {
    const x = new Float32Array(64 * this.batch);
    x.set(images);
    const { logits } = await this.run(x, new Int32Array(this.batch));
    return Array.from({ length: images.length / 64 }, (_, n) => logits.data.slice(10 * n, 10 * n + 10));
  }

  /**
   * Which hidden units are open, layer by layer: t . h >= 0, where h = sum_j W_j a_j + b has K components.
   * A conventional unit has one, and t = -1, 1, -1, 1, ...
   */
  gates(image) {
    let activity = Array.from(image, (pixel) => pixel / 8 - 1);
    return this.hidden.map((name, depth) => {
      const [kernel, bias, signs] = ["kernel", "bias", "gates"].map((part) => this.state[`${name}_${part}`]);
      const inputs = kernel.dims[0];
      const units = kernel.dims.at(-1);
      const h = Float64Array.from(bias.data);
      for (let j = 0; j < inputs; j++) {
        for (let n = 0; n < h.length; n++) {
          const k = Math.floor(n / units);
          // Pixels have a kernel for each component; vectors have one for all.
          h[n] += depth
            ? kernel.data[j * units + (n % units)] * activity[k * inputs + j]
            : kernel.data[j * h.length + n] * activity[j];
        }
      }
      const aligned = new Float64Array(units);
      h.forEach((value, n) => (aligned[n % units] += value * (signs ? signs.data[n] : n % 2 ? 1 : -1)));
      const open = Array.from(aligned, (value) => value >= 0);
      activity = h.map((value, n) => (open[n % units] ? value : 0));
      return open;
    });
  }
}
