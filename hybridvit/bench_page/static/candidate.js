// What the page knows of a candidate: a model with some threads or on WebGPU, in a Worker of its own.

export const OPEN_SECONDS = 60; // longer than this a session hangs, as those with threads do on some phones
const FETCH_SECONDS = 600;
const CALL_SECONDS = 120;
const WEBGPU_CALLS = 200; // of one Worker: after some hundreds WebGPU has died

/** Why a candidate is not measured, in words for a person. */
export class LeftOut extends Error {}

export class Candidate {
  /**
   * @param {object} model a row of the manifest
   * @param {{provider: "wasm" | "webgpu", threads: number, module: string}} way
   */
  constructor(model, way) {
    this.model = model;
    this.way = way;
    this.timesMs = [];
    this.processes = [];
    this.numWorkers = 0;
    this.isStable = true;
    this.error = NaN;
    this.threads = way.threads; // those that really run, once it is open
    this.worker = null;
  }

  get label() {
    return `${this.model.record.model}, ${wayInWords(this.way.provider, this.threads)}`;
  }

  get key() {
    return `${this.model.record.model}|${this.way.provider}|${this.way.threads}`;
  }

  /** Open it in a new Worker, prove its answers and call it until its time is stable. Throws LeftOut. */
  async open(say = () => {}) {
    try {
      await this.openWith(this.way.threads, say);
    } catch (error) {
      if (!(error instanceof TooSlow) || this.way.threads === 1) throw error;
      say(`${this.label} did not open in ${OPEN_SECONDS} s; once more with one thread`);
      await this.openWith(1, say);
    }
    this.numWorkers += 1;
    this.callsOfWorker = 0;
  }

  async openWith(threads, say) {
    const { provider, module } = this.way;
    const { input, reference, limit, file } = this.model;
    this.close();
    this.worker = new WorkerLine();
    await this.worker.ask("fetch", { module, file }, FETCH_SECONDS);
    say(`opening ${this.label}`);
    const opened = await this.worker.ask("open", { provider, threads, input, reference }, OPEN_SECONDS);
    this.threads = opened.threads;
    this.error = opened.error;
    if (!(this.error <= limit)) {
      throw new LeftOut(
        `it answers something else than ONNX Runtime: ${inPower(this.error)} of the largest output, where ` +
          `${inPower(limit)} is allowed`,
      );
    }
    say(`warming up ${this.label}`);
    this.isStable = (await this.worker.ask("warmUp", {}, CALL_SECONDS)) && this.isStable;
  }

  /** The times of a turn; a Worker on WebGPU is replaced before it has made too many calls. */
  async turn(calls) {
    if (this.way.provider === "webgpu" && this.callsOfWorker + calls + 1 > WEBGPU_CALLS) await this.open();
    this.callsOfWorker += calls + 1;
    return this.worker.ask("turn", { calls }, CALL_SECONDS * (calls + 1));
  }

  /** Keep the times of a turn that nothing disturbed. */
  keep(timesMs) {
    this.timesMs.push(...timesMs);
    this.processes.push(this.numWorkers);
  }

  /** End the Worker: memory that a session releases never returns to the system, a Worker's does. */
  close() {
    this.worker?.end();
    this.worker = null;
  }
}

class TooSlow extends LeftOut {}

/** A Worker that is asked one thing at a time. */
class WorkerLine {
  constructor() {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.number = 0;
  }

  ask(action, options, seconds) {
    this.number += 1;
    const { number, worker } = this;
    return new Promise((resolve, reject) => {
      const stopClock = limited(seconds, () => reject(new TooSlow(`no answer in ${seconds} s`)));
      const settle = (done, value) => {
        stopClock();
        done(value);
      };
      worker.onmessage = ({ data }) => {
        if (data.number !== number) return;
        if ("failed" in data) settle(reject, new LeftOut(`it failed: ${data.failed}`));
        else settle(resolve, data.result);
      };
      worker.onerror = (event) => settle(reject, new LeftOut(`its Worker ended: ${event.message || "out of memory"}`));
      worker.postMessage({ number, action, options });
    });
  }

  end() {
    this.worker.terminate();
  }
}

/** Call `expired` after so many seconds of a page that is seen; a hidden one may sleep. Gives what stops the clock. */
function limited(seconds, expired) {
  let wasHidden = false;
  let clock = 0;
  const hidden = () => (wasHidden = true);
  const start = () => {
    wasHidden = document.hidden;
    clock = setTimeout(() => (wasHidden ? start() : expired()), seconds * 1000);
  };
  for (const event of ["visibilitychange", "freeze"]) document.addEventListener(event, hidden);
  start();
  return () => {
    clearTimeout(clock);
    for (const event of ["visibilitychange", "freeze"]) document.removeEventListener(event, hidden);
  };
}

/** What a candidate runs on. */
export function wayInWords(provider, threads) {
  if (provider === "webgpu") return "WebGPU";
  return threads === 1 ? "1 thread" : `${threads} threads`;
}

function inPower(share) {
  return Number.isFinite(share) ? share.toExponential(1) : "no number";
}
