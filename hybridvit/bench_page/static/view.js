// What the page shows: the choice before, the table and the charts while it measures, the sentence at the end.

import { wayInWords } from "./candidate.js";
import { coloursOf, drawBars, drawTradeoff } from "./chart.js";
import { usualThreads, webgpuBuild } from "./environment.js";
import { msInWords, sentences, shortNames, wayOf } from "./result.js";

/** The element with that id. */
export const byId = (id) => document.getElementById(id);

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** Models and ways to run as boxes to tick; `asked` are those of the address, if any. */
export function showChoice(manifest, environment, asked) {
  const short = shortNames(manifest.models.map((model) => model.record.model));
  const models = manifest.models.map((model, place) => {
    const { model: name, precision, image_size: size, top1 } = model.record;
    const facts = [precision === "fp32" ? "" : precision, size.replace("x", " × "), top1 === null ? "" : `${top1.toFixed(1)} %`];
    return ticked("model", place, short.get(name), [...facts, megabytes(model.bytes)].filter(Boolean).join(" · "), true);
  });
  byId("models").replaceChildren(...models);
  const { threads, webgpuModule } = environment;
  const possible = (asked.threads ?? []).filter((count) => threads.includes(count));
  const usual = possible.length ? possible : [usualThreads(threads)];
  const boxes = threads.map((count) => ticked("threads", count, wayInWords("wasm", count), "", usual.includes(count)));
  if (webgpuModule) boxes.push(ticked("webgpu", 1, "WebGPU", "", asked.webgpu ?? true));
  byId("ways").replaceChildren(...boxes);
  byId("ways-note").textContent = absent(environment, manifest);
  if (asked.rounds) byId("rounds").append(new Option(`${asked.rounds}`, asked.rounds, true, true));
}

function absent({ gpu }, manifest) {
  const said = [];
  if (!webgpuBuild(manifest)) said.push("This page was written without WebGPU.");
  else if (!gpu) said.push("No WebGPU in this browser.");
  return [...said, "WebNN is not measured."].join(" ");
}

function ticked(name, value, text, facts, checked) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "checkbox", name, value, checked });
  label.append(input, spanOf("name", text), spanOf("quiet small", facts));
  return label;
}

function spanOf(className, text) {
  return Object.assign(document.createElement("span"), { className, textContent: text });
}

/** What this browser is, in one line on top and in a list below. */
export function showEnvironment(environment, manifest) {
  const { browser, cores, isolated, gpu, memoryGib, clockStepMs, system, processor } = environment;
  const core = `${cores} ${cores === 1 ? "core" : "cores"}`;
  byId("where").textContent = [browser.replace(/(\d+)\..*/, "$1"), system, core, gpu ? "WebGPU" : ""].filter(Boolean).join(" · ");
  const facts = {
    Browser: browser,
    System: system,
    Processor: processor === "unknown" ? "browsers do not tell" : processor,
    Cores: cores,
    Memory: memoryGib === null ? "not told" : `${memoryGib} GiB, as far as browsers tell`,
    "Isolated, so with threads": isolated ? "yes" : "no",
    WebGPU: gpu ? `${gpu.name}${gpu.hasHalf ? ", fp16" : ""}` : "no",
    WebNN: environment.hasWebNN ? "there, not measured" : "no",
    "Step of the clock": `${clockStepMs} ms`,
    "ONNX Runtime Web": manifest.onnxruntime_web,
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([title, text]) => [
      Object.assign(document.createElement("dt"), { textContent: title }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]),
  );
}

/** Why there are no threads, and what helps. */
export function showNotIsolated(environment) {
  byId("notice").hidden = environment.isolated;
  byId("why").textContent = environment.isSecure
    ? "This page is not cross-origin isolated, and this browser did not let it isolate itself. It measures all the same."
    : "Browsers give threads, WebGPU and work without a network to https and to localhost alone. It measures all the same.";
}

/** How far a run is. */
export function showProgress(run) {
  byId("share").value = run.share;
  byId("doing").textContent = run.text;
  byId("left").textContent = run.secondsLeft === null ? "" : `${timeInWords(run.secondsLeft)} left`;
}

function timeInWords(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}

/** Charts, table and remarks of a result, finished or not. */
export function showResult(result) {
  const records = [...result.bench].sort((one, other) => one.median_ms - other.median_ms);
  byId("results").hidden = !records.length && !result.skipped.length;
  const colours = coloursOf(records);
  const short = shortNames(records.map((each) => each.model));
  showFigure("tradeoff", records.filter((each) => each.top1 !== null), colours, drawTradeoff);
  showFigure("bars", records.filter((each) => each.top1 === null), colours, drawBars);
  byId("rows").replaceChildren(...records.map((each) => tableRow(each, records[0], colours, short)));
  byId("results").classList.toggle("without-top1", records.every((each) => each.top1 === null));
  const leftOut = result.skipped.map((each) => `Left out: ${each.reason}`);
  const remarks = [...leftOut, ...result.conditions.warnings];
  if (records.length) remarks.unshift(proofInWords(records));
  byId("remarks").replaceChildren(
    ...remarks.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
}

function proofInWords(records) {
  const largest = Math.max(...records.map((each) => each.difference)).toExponential(0);
  return `Checked before it was timed: no answer differs from ONNX Runtime's by more than ${largest} of the largest output.`;
}

function showFigure(id, records, colours, draw) {
  byId(id).hidden = !records.length;
  if (records.length) draw(byId(id).querySelector("svg"), records, colours);
}

function tableRow(record, fastest, colours, short) {
  const row = document.createElement("tr");
  const interval = `${msInWords(record.low_ms)} – ${msInWords(record.high_ms)}`;
  const median = cell("number", msInWords(record.median_ms));
  median.append(spanOf("quiet small narrow", interval));
  row.append(
    nameCell(record, colours.get(record.model), short.get(record.model)),
    cell("way", wayOf(record)),
    median,
    cell("number wide", interval),
    cell("number wide", msInWords(record.p90_ms)),
    cell("number wide", record.images_per_s.toFixed(1)),
    cell("number top1", record.top1 === null ? "–" : record.top1.toFixed(1)),
    cell("number wide", `${(record.median_ms / fastest.median_ms).toFixed(2)}×`),
  );
  return row;
}

function nameCell(record, colour, short) {
  const made = Object.assign(document.createElement("td"), { title: record.model });
  const dot = spanOf("dot", "");
  dot.style.background = colour;
  const isTold = record.precision === "fp32" || record.model.includes(record.precision);
  const name = spanOf("model", "");
  name.append(dot, spanOf("name", isTold ? short : `${short} (${record.precision})`));
  made.append(name);
  return made;
}

function cell(className, textContent) {
  return Object.assign(document.createElement("td"), { className, textContent });
}

/** The answer, on top. */
export function showVerdict(result) {
  const lines = sentences(result.bench);
  if (!result.complete) lines.push("Measuring was ended early: so far.");
  byId("verdict").replaceChildren(
    ...lines.map((textContent) => Object.assign(document.createElement("p"), { textContent })),
  );
  showState("done");
}

/** Which parts are there: before, while it measures, and at the end. @param {"asking" | "running" | "done"} state */
export function showState(state) {
  byId("choice").hidden = state !== "asking";
  byId("running").hidden = state !== "running";
  byId("verdict").hidden = byId("actions").hidden = state !== "done";
  if (state === "running") byId("partial").hidden = true;
}
