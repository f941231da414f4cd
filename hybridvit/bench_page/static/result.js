// What a run found, as the JSON of `hybridvit bench`, and in sentences.

import { wayInWords } from "./candidate.js";
import { MOST_DRIFT, MOST_NOISE, MOST_SPREAD, median, noise, summary } from "./latency.js";

const FORMAT = 1;
const RUNTIME = "onnxruntime-web";
const KEPT = "hybridvit-bench-partial";
const COARSE = 0.02; // share of a time above which a step of the clock is said

/** One row with the columns of hybridvit/measure/result.py; times in milliseconds. */
export function record(candidate, callsPerTurn) {
  const { timesMs, processes, threads, way } = candidate;
  const found = summary({ timesMs, callsPerTurn, processes });
  return {
    ...candidate.model.record,
    ...wayRecord(way, threads),
    median_ms: rounded(found.medianMs),
    low_ms: rounded(found.lowMs),
    high_ms: rounded(found.highMs),
    p90_ms: rounded(found.p90Ms),
    p99_ms: rounded(found.p99Ms),
    images_per_s: rounded(1000 / found.medianMs, 2),
    rounds: found.rounds,
    calls: found.calls,
    memory_mib: null,
    processes: found.turnsMs.length,
    process_spread: rounded(found.spread),
    faults_per_call: null,
    turns_ms: found.turnsMs.map((turns) => turns.map((turn) => rounded(turn))),
    difference: Number(candidate.error.toPrecision(3)), // from ONNX Runtime where the page was written
  };
}

function wayRecord(way, threads) {
  return { runtime: RUNTIME, device: way.provider === "webgpu" ? "webgpu" : "cpu", threads };
}

/** Everything, in the format that `hybridvit bench --from` reads. */
export function resultOf(run, environment, manifest, skippedBefore) {
  const { calls, rounds } = run.options;
  const skipped = run.skipped.map(({ candidate, reason }) => skippedRow(candidate.model, candidate.label, reason));
  return {
    format: FORMAT,
    bench: run.measured.map((each) => record(each, calls)),
    skipped: [...skippedBefore, ...skipped],
    settings: {
      protocol: "",
      rounds,
      calls_per_turn: calls,
      processes: 1,
      threads: Math.max(1, ...run.measured.map((each) => each.threads)),
      threads_pinned_to_cores: false,
      statistic: "median over turns of the median of a turn; one call before each turn is not timed",
    },
    conditions: conditionsOf(run, environment),
    machine: machineOf(environment, manifest, run),
    complete: run.isComplete,
  };
}

/** A candidate that was not measured. */
export function skippedRow(model, label, reason) {
  const { precision, batch, image_size } = model.record;
  return { model: model.record.model, runtime: RUNTIME, precision, batch, image_size, reason: `${label}: ${reason}` };
}

function machineOf(environment, manifest, run) {
  return {
    processor: environment.processor,
    cores: environment.cores,
    memory_gib: environment.memoryGib,
    instruction_sets: [],
    gpu: environment.gpu?.name ?? "none",
    system: environment.system,
    python: "",
    versions: { "onnxruntime-web": manifest.onnxruntime_web, browser: environment.browser },
    environment: {
      isolated: environment.isolated,
      threads: [...new Set(run.measured.map((each) => each.threads))].sort((one, other) => one - other),
      clock_step_ms: environment.clockStepMs,
      user_agent: environment.userAgent,
    },
  };
}

function conditionsOf(run, environment) {
  const { measured } = run;
  const drifts = run.drifts.filter((each) => each !== null);
  const drift = drifts.reduce((most, each) => (Math.abs(each) > Math.abs(most ?? 0) ? each : most), null);
  const middle = measured.length ? median(measured.map((each) => noise(each.timesMs))) : 0;
  return {
    drift,
    noise: middle,
    others: null,
    stolen: null,
    throttled: null,
    interrupted: run.numInterrupted,
    warnings: [...warnings(run, environment, drift, middle)],
  };
}

/** What a reader has to know before believing the times. */
function* warnings(run, environment, drift, middle) {
  const { measured } = run;
  if (!environment.isolated) {
    yield "The page was not cross-origin isolated: one thread, and a clock of " +
      `${environment.clockStepMs} ms steps.`;
  }
  if (drift !== null && Math.abs(drift) > MOST_DRIFT) {
    yield `The last third of the rounds was ${percent(Math.abs(drift))} ${drift > 0 ? "slower" : "faster"} than the ` +
      "first: the clock changed (heat, power) or other work began or ended. Compare what took turns; times " +
      "alone do not hold.";
  }
  if (middle > MOST_NOISE) {
    yield `One call in ten took ${percent(middle)} longer than the median, or more: times are noisy.`;
  }
  const unstable = measured.filter((each) => !each.isStable).map((each) => each.label);
  if (unstable.length) yield `After 10 seconds of warm-up the time was not stable yet: ${some(unstable)}.`;
  const changed = measured.filter((each) => spreadOf(each, run) > MOST_SPREAD);
  for (const each of changed) {
    yield `${each.label} was measured in ${each.numWorkers} Workers, whose medians differ by ` +
      `${percent(spreadOf(each, run))}: between them the device changed its speed.`;
  }
  if (run.numInterrupted) {
    yield `The page was hidden ${run.numInterrupted} times while it measured; these turns were thrown away.`;
  }
  const coarse = measured.filter((each) => environment.clockStepMs > COARSE * median(each.timesMs));
  if (coarse.length) {
    yield `The clock of this page, in steps of ${environment.clockStepMs} ms, is coarse for ` +
      `${some(coarse.map((each) => each.label))}.`;
  }
}

function some(labels, most = 3) {
  const more = labels.length > most ? ` and ${labels.length - most} more` : "";
  return labels.slice(0, most).join("; ") + more;
}

function spreadOf({ timesMs, processes }, run) {
  return summary({ timesMs, callsPerTurn: run.options.calls, processes }).spread;
}

/**
 * Which is fastest, in a sentence; and what the most accurate takes where that is known.
 * @param {object[]} records rows of a result
 */
export function sentences(records) {
  const short = shortNames(records.map((each) => each.model));
  const named = (row) => `${short.get(row.model)} (${wayOf(row)})`;
  const ordered = [...records].sort((one, other) => one.median_ms - other.median_ms);
  if (!ordered.length) return ["Nothing could be measured here."];
  const [first] = ordered;
  const ofEach = ordered.filter((each, place) => ordered.findIndex(({ model }) => model === each.model) === place);
  const said = [fastestInWords(first, ofEach.slice(1), named)];
  const best = mostAccurate(ordered);
  if (best && best.model !== first.model) {
    said.push(`The most accurate is ${named(best)}: ${best.top1.toFixed(1)} % top-1 at ${inMs(best)} an image.`);
  }
  return said;
}

/** @param {object} first the fastest row @param {object[]} others the fastest row of each other model, in order */
function fastestInWords(first, others, named) {
  const alike = others.filter((each) => each.low_ms <= first.high_ms);
  if (alike.length) {
    const names = [first, ...alike].map(named);
    return `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are the fastest here, too close to tell apart: ` +
      `${inMs(first)} an image.`;
  }
  const [next] = others;
  if (!next) return `${named(first)} takes ${inMs(first)} an image here.`;
  return `${named(first)} is the fastest here: ${inMs(first)} an image, ` +
    `${(next.median_ms / first.median_ms).toFixed(1)} times as fast as ${named(next)}.`;
}

function mostAccurate(ordered) {
  return ordered.reduce((best, each) => (each.top1 !== null && each.top1 > (best?.top1 ?? -1) ? each : best), null);
}

/** Names without the tag behind a dot that timm's have, where that tells them apart. @param {string[]} models */
export function shortNames(models) {
  const known = [...new Set(models)];
  const start = (model) => model.split(".")[0];
  const isAlone = (model) => known.filter((each) => start(each) === start(model)).length === 1;
  return new Map(known.map((model) => [model, isAlone(model) ? start(model) : model]));
}

/** What a row of a result ran on, in words. */
export function wayOf(row) {
  return wayInWords(row.device === "webgpu" ? "webgpu" : "wasm", row.threads);
}

function inMs(row) {
  return `${msInWords(row.median_ms)} ms`;
}

/** Three digits of a time. */
export function msInWords(value) {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function percent(share) {
  return `${Math.round(share * 100)}%`;
}

function rounded(value, digits = 4) {
  return Number(value.toFixed(digits));
}

/** Keep what there is, for a tab that the system ends. */
export function keepPartial(result) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(result));
  } catch {
    // storage is full or forbidden: then nothing is kept, and measuring goes on
  }
}

/** A result that was not finished, if a tab was ended while it measured; null otherwise. */
export function partialResult() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    return kept?.format === FORMAT && !kept.complete && kept.bench.length ? kept : null;
  } catch {
    return null;
  }
}

/** Forget it: the run is over, or was looked at. */
export function forgetPartial() {
  try {
    sessionStorage.removeItem(KEPT);
  } catch {
    // nothing was kept then
  }
}
