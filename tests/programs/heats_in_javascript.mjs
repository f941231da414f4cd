// A run with Workers that only pretend, as JSON: node heats_in_javascript.mjs FOLDER_OF_THE_PAGE
//
// Seconds are milliseconds here; a model called "hangs" never opens with threads, "wrong" answers something else, and
// "breaks" fails in its third turn.

import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const realTimeout = globalThis.setTimeout;
globalThis.setTimeout = (action, ms) => realTimeout(action, ms / 1000);
globalThis.document = Object.assign(new EventTarget(), { hidden: false });
const calls = []; // the model of each turn
let alive = 0;
let mostAlive = 0;

globalThis.Worker = class {
  constructor() {
    alive += 1;
    mostAlive = Math.max(mostAlive, alive);
    this.turns = 0;
  }

  postMessage({ number, action, options }) {
    const result = this[action](options);
    if (result !== "never") queueMicrotask(() => this.onmessage({ data: { number, ...result } }));
  }

  fetch({ file }) {
    this.file = file;
    return { result: null };
  }

  open({ threads }) {
    if (this.file === "hangs" && threads > 1) return "never";
    return { result: { threads, error: this.file === "wrong" ? 0.5 : 1e-7 } };
  }

  warmUp() {
    return { result: true };
  }

  turn({ calls: wanted }) {
    calls.push(this.file);
    this.turns += 1;
    if (this.file === "breaks" && this.turns === 3) return { failed: "out of memory" };
    return { result: Array(wanted).fill(this.file.length) };
  }

  terminate() {
    alive -= 1;
  }
};

const { Candidate } = await import(pathToFileURL(`${folder}/candidate.js`));
const { Presence, Run } = await import(pathToFileURL(`${folder}/run.js`));

const models = new Map();

function candidate(name, threads, provider = "wasm") {
  const record = { model: name, precision: "fp32" };
  if (!models.has(name)) models.set(name, { record, file: name, limit: 1e-4 });
  return new Candidate(models.get(name), { provider, threads, module: "ort" });
}

async function ran(candidates, options) {
  calls.length = 0;
  mostAlive = 0;
  const shares = [];
  const run = new Run(candidates, options, new Presence(document), (now) => shares.push(now.share));
  await run.start();
  return {
    calls: [...calls],
    mostAlive,
    leftAlive: alive,
    skipped: run.skipped.map((each) => [each.candidate.model.file, each.reason]),
    threads: run.measured.map((each) => each.threads),
    workers: run.measured.map((each) => each.numWorkers),
    turns: run.measured.map((each) => each.processes.length),
    isComplete: run.isComplete,
    rounds: run.options.rounds,
    isShareRising: shares.every((share, place) => !place || share >= shares[place - 1]),
    shares: [shares[0], shares.at(-1)],
  };
}

const names = ["a", "b", "c"];
const said = {
  heats: await ran(names.map((name) => candidate(name, 2)), { rounds: 8, calls: 1, alive: 2 }),
  faulty: await ran(
    ["wrong", "hangs", "breaks", "good"].map((name) => candidate(name, 4)),
    { rounds: 8, calls: 1, alive: 4 },
  ),
  lost: await ran(["breaks", "a", "b"].map((name) => candidate(name, 2)), { rounds: 8, calls: 1, alive: 2 }),
  same: await ran([candidate("hangs", 4), candidate("hangs", 1)], { rounds: 3, calls: 1, alive: 4 }),
  gpu: await ran([candidate("gpu", 1, "webgpu")], { rounds: 50, calls: 9, alive: 4 }),
};
console.log(JSON.stringify(said));
