// One candidate: it opens its model, proves its answers and takes its turns as the page tells it.

import { warmUp } from "./latency.js";
import { caller, openModel, relativeError } from "./session.js";

const candidate = { ort: null, bytes: null, call: null };

const ACTIONS = {
  /** Fetch the module and the model; no clock runs against the network. */
  async fetch({ module, file }) {
    candidate.ort = await import(new URL(module, self.location.href).href);
    const answer = await fetch(new URL(file, self.location.href));
    if (!answer.ok) throw new Error(`${file} could not be fetched (${answer.status})`);
    candidate.bytes = new Uint8Array(await answer.arrayBuffer());
  },
  /** Open it and call it once: threads that run, and how far its answer is from the reference. */
  async open({ provider, threads, input, reference }) {
    const folder = new URL("ort/", self.location.href).href;
    const opened = await openModel(candidate.ort, candidate.bytes, { folder, provider, threads });
    candidate.bytes = null;
    candidate.call = caller(candidate.ort, opened.session, input);
    return { threads: opened.threads, error: relativeError(await candidate.call(), reference) };
  },
  /** Whether its time became stable. */
  warmUp: () => warmUp(timed),
  /** One call that is not timed, which brings the weights back into the caches, then `calls` timed ones. */
  async turn({ calls }) {
    await candidate.call();
    return timed(calls);
  },
};

async function timed(calls) {
  const timesMs = [];
  for (let call = 0; call < calls; call += 1) {
    const start = performance.now();
    await candidate.call();
    timesMs.push(performance.now() - start);
  }
  return timesMs;
}

self.onmessage = async ({ data: { number, action, options } }) => {
  try {
    self.postMessage({ number, result: await ACTIONS[action](options) });
  } catch (error) {
    self.postMessage({ number, failed: String(error?.message ?? error) });
  }
};
