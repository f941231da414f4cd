// A model in ONNX Runtime Web: opened, given its input, compared with the reference. Runs in Workers and in Node.

const GOLDEN = 0x9e3779b9; // as in hybridvit/bench_page/fixed_input.py
const SPREAD = Math.sqrt(3);
const KINDS = { float32: Float32Array, uint8: Uint8Array };

/** The same numbers that Python makes, bit for bit. @param {{shape: number[], dtype: string, seed: number}} input */
export function fixedInput({ shape, dtype, seed }) {
  const values = new KINDS[dtype](shape.reduce((product, side) => product * side, 1));
  const start = Math.imul(seed, GOLDEN) >>> 0;
  for (let place = 0; place < values.length; place += 1) {
    const mixed = mixedBits((place + start) >>> 0);
    values[place] = dtype === "uint8" ? mixed >>> 24 : (mixed / 2 ** 31 - 1) * SPREAD;
  }
  return values;
}

/** The last step of MurmurHash3, which mixes 32 bits. */
function mixedBits(bits) {
  let mixed = bits ^ (bits >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/**
 * Open a model. `threads` is what really runs: ONNX Runtime Web falls back to one without a word where the page is not
 * isolated, and its number is fixed by the first session of a page, hence one Worker for each candidate.
 * @param {object} ort the imported module
 * @param {Uint8Array} bytes
 * @param {{folder: string, provider: "wasm" | "webgpu", threads: number}} options
 */
export async function openModel(ort, bytes, { folder, provider, threads }) {
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error"; // of warnings it has one for each graph that computes its shapes on the CPU
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider], logSeverityLevel: 3 });
  return { session, threads: provider === "webgpu" ? 1 : ort.env.wasm.numThreads };
}

/** A call: the input is there already, and what comes out is read, so that a GPU is waited for. */
export function caller(ort, session, input) {
  const images = new ort.Tensor(input.dtype, fixedInput(input), input.shape);
  const feeds = { [session.inputNames[0]]: images };
  return async () => {
    const outputs = await session.run(feeds);
    return session.outputNames.map((name) => outputs[name].data);
  };
}

/** max|difference| / max|reference| over the numbers that the manifest holds; infinite for another shape, or no number. */
export function relativeError(outputs, reference) {
  return Math.max(...reference.map((wanted, place) => errorOf(outputs[place], wanted)));
}

function errorOf(output, { size, step, values }) {
  if (output?.length !== size) return Infinity;
  let largest = Number.MIN_VALUE;
  let difference = 0;
  for (const [place, value] of values.entries()) {
    const found = Number(output[place * step]);
    if (!Number.isFinite(found)) return Infinity;
    largest = Math.max(largest, Math.abs(value));
    difference = Math.max(difference, Math.abs(found - value));
  }
  return difference / largest;
}
