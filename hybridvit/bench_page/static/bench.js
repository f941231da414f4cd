// The page: what is there, what was asked for, and a run that is drawn while it goes.

import { Candidate } from "./candidate.js";
import { lookAround } from "./environment.js";
import { fetchAll, isolateItself } from "./offline.js";
import { forgetPartial, keepPartial, partialResult, resultOf, skippedRow } from "./result.js";
import { Presence, Run } from "./run.js";
import { byId, showChoice, showEnvironment, showNotIsolated, showProgress, showResult, showState, showVerdict } from "./view.js";

const CALLS = 3; // timed ones of a turn
const SAVING_SECONDS = 60; // some browsers read what they save after the click
const ALIVE = { phone: 2, desktop: 4 }; // Workers at a time
const page = { manifest: null, environment: null, result: null };

/** What the address asks for: ?threads=1,2&webgpu=0&rounds=8&calls=1&alive=2&start */
function askedFor() {
  const query = new URLSearchParams(location.search);
  const number = (name) => (query.has(name) ? Number(query.get(name)) : undefined);
  return {
    threads: query.get("threads")?.split(",").map(Number),
    webgpu: query.has("webgpu") ? query.get("webgpu") !== "0" : undefined,
    rounds: number("rounds"),
    calls: number("calls") ?? CALLS,
    alive: number("alive"),
    start: query.has("start"),
  };
}

/** The candidates that are ticked, and those that there cannot be. */
function chosen({ manifest, environment }) {
  const ticked = (name) => [...document.querySelectorAll(`input[name=${name}]:checked`)].map((box) => Number(box.value));
  const candidates = [];
  const skipped = [];
  for (const place of ticked("model")) {
    const model = manifest.models[place];
    for (const threads of ticked("threads").sort((one, other) => other - one)) {
      candidates.push(new Candidate(model, { provider: "wasm", threads, module: `ort/${manifest.builds.wasm.module}` }));
    }
    if (!ticked("webgpu").length) continue;
    const reason = whyNotWebGPU(model, environment);
    const way = { provider: "webgpu", threads: 1, module: `ort/${environment.webgpuModule}` };
    if (reason) skipped.push(skippedRow(model, `${model.record.model}, WebGPU`, reason));
    else candidates.push(new Candidate(model, way));
  }
  return { candidates, skipped };
}

function whyNotWebGPU(model, { gpu }) {
  if (model.record.precision === "int8") return "int8 runs on the processor alone";
  if (model.record.precision === "fp16" && !gpu.hasHalf) return "this GPU has no fp16 (shader-f16)";
  return model.not_on_webgpu;
}

async function measure(asked) {
  const { candidates, skipped } = chosen(page);
  if (!candidates.length) {
    byId("ready").textContent = "Tick at least one model and one way to run it.";
    return;
  }
  const { environment, manifest } = page;
  const alive = Math.max(2, asked.alive ?? (environment.isPhone ? ALIVE.phone : ALIVE.desktop)); // the anchor, and one
  const options = { rounds: Number(byId("rounds").value), calls: asked.calls, alive };
  const run = new Run(candidates, options, page.presence, (now) => {
    showProgress(now);
    page.result = resultOf(now, environment, manifest, skipped);
    showResult(page.result);
    if (page.result.bench.length) keepPartial(page.result);
  });
  showState("running");
  byId("stop").onclick = () => run.stop();
  const release = await stayAwake();
  try {
    await run.start();
  } finally {
    release();
  }
  forgetPartial();
  showVerdict(page.result);
  scrollTo(0, 0);
}

/** Keep the screen on, where that is allowed; gives what lets it sleep again. */
async function stayAwake() {
  let lock = null;
  const ask = async () => {
    if (!document.hidden) lock = (await navigator.wakeLock?.request("screen").catch(() => null)) ?? null;
  };
  document.addEventListener("visibilitychange", ask);
  await ask();
  return () => {
    document.removeEventListener("visibilitychange", ask);
    lock?.release();
  };
}

const resultText = () => `${JSON.stringify(page.result)}\n`;
const resultFile = () => new File([resultText()], "bench.json", { type: "application/json" });

function save() {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(resultFile()), download: "bench.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVING_SECONDS * 1000);
}

async function copy() {
  const copied = await navigator.clipboard?.writeText(resultText()).then(() => true, () => false);
  byId("done").textContent = copied ? "Copied." : "This browser does not let the page copy: save it.";
}

function showPartial(partial) {
  byId("partial").hidden = false;
  byId("show-partial").onclick = () => {
    page.result = partial;
    byId("partial").hidden = true;
    showResult(partial);
    showVerdict(partial);
    forgetPartial();
  };
}

function connect(asked) {
  byId("choice").addEventListener("submit", (event) => {
    event.preventDefault();
    measure(asked).catch(failed);
  });
  byId("again").onclick = () => showState("asking");
  byId("save").onclick = save;
  byId("copy").onclick = copy;
  byId("share-json").hidden = !navigator.canShare?.({ files: [resultFile()] });
  byId("share-json").onclick = () => navigator.share({ files: [resultFile()], title: "Benchmark" }).catch(() => {});
  addEventListener("resize", () => page.result && showResult(page.result));
}

function failed(error) {
  byId("ready").textContent = `This did not work: ${error.message ?? error}`;
  showState("asking");
}

async function begin() {
  const asked = askedFor();
  await isolateItself();
  page.manifest = await (await fetch("manifest.json")).json();
  page.environment = await lookAround(page.manifest);
  page.presence = new Presence();
  showEnvironment(page.environment, page.manifest);
  showNotIsolated(page.environment);
  showChoice(page.manifest, page.environment, asked);
  connect(asked);
  const partial = partialResult();
  if (partial) showPartial(partial);
  const isKept = await fetchAll(page, (text) => (byId("ready").textContent = text));
  byId("ready").textContent = isKept
    ? "Everything is loaded: this page now works without a network, and sends nothing."
    : "Everything is loaded. The page sends nothing.";
  byId("start").disabled = false;
  if (asked.start) await measure(asked);
}

begin().catch(failed);
