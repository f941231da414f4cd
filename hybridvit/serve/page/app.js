/** The page of the service: a picture goes to one model or two, and their answers are shown. */

import { request } from "./ask.js";
import { compared, element } from "./draw.js";
import { Panel } from "./panel.js";

const MOST_BYTES = 10_000_000; // of a file; of a larger one a smaller copy is sent
const COPY_SIDE_PX = 2048;
const COPY_QUALITY = 0.92;
const FEW_PX = 100;
const FOREVER = new AbortController().signal; // never aborted

const at = (id) => document.getElementById(id);

let models = [];
let panels = [];
let picture = null; // what is sent
let reading = new AbortController();

// Models

async function start() {
  at("trouble").hidden = true;
  at("host").textContent = location.host;
  try {
    const response = await request("models", {}, FOREVER);
    models = await response.json();
  } catch (error) {
    return trouble(error.message, start);
  }
  const options = () => models.map(({ name }) => element("option", { value: name, textContent: name }));
  at("model").replaceChildren(...options());
  at("other").append(...options());
  at("other-field").hidden = models.length < 2;
  choose();
}

/** Panels for the models that are chosen; one that was there already keeps its answer. */
function choose() {
  const names = new Set([at("model").value, at("other").value].filter(Boolean));
  const before = new Map(panels.map((panel) => [panel.model.name, panel]));
  const newPanel = (name) => new Panel(models.find((model) => model.name === name), say, compare);
  panels = [...names].map((name) => before.get(name) ?? newPanel(name));
  for (const [name, panel] of before) if (!names.has(name)) panel.clear();
  at("panels").replaceChildren(...panels.map((panel) => panel.root));
  document.title = `${[...names].join(", ")} · hybridvit`;
  for (const panel of panels) if (picture && !before.has(panel.model.name)) panel.ask(picture);
  compare();
}

function compare() {
  const bodies = panels.map((panel) => panel.body);
  const isKnown = bodies.length === 2 && bodies.every(Boolean);
  const { same, text } = isKnown ? compared(...bodies) : { same: null, text: "" };
  at("verdict").hidden = !text;
  at("verdict").dataset.same = same;
  at("verdict").textContent = text;
  if (text) say(text);
}

// Pictures

/** Gives up what was read and asked before. Returns the signal that will do so with what begins now. */
function begin() {
  reading.abort();
  reading = new AbortController();
  for (const panel of panels) panel.clear();
  at("trouble").hidden = true;
  return reading.signal;
}

/** Reads a file and asks the models about it. */
async function show(file, remark = "") {
  const signal = begin();
  zoneBecomes("reading", `Reading ${file.name} …`);
  say(`Reading ${file.name}`);
  let sent;
  try {
    const bytes = new Blob([await file.arrayBuffer()], { type: file.type });
    sent = bytes.size > MOST_BYTES ? await smallerCopy(bytes) : { blob: bytes, remark: "" };
  } catch {
    const message = `${file.name} could not be read. Is it a file, and is it still there?`;
    if (!signal.aborted) trouble(message, () => show(file));
    return;
  }
  if (signal.aborted) return;
  picture = sent.blob;
  preview(file.name, [remark, sent.remark].filter(Boolean).join(" "));
  for (const panel of panels) panel.ask(picture);
}

/** A JPEG of at most COPY_SIDE_PX, and the sentence that says so; the file itself where the browser cannot open it. */
async function smallerCopy(blob) {
  const image = await createImageBitmap(blob).catch(() => null);
  if (!image) return { blob, remark: "" };
  const scale = Math.min(1, COPY_SIDE_PX / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.round(side * scale));
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  const copy = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", COPY_QUALITY));
  const megabytes = (blob.size / 1e6).toFixed(1);
  return {
    blob: copy,
    remark:
      `The file has ${megabytes} MB, more than the 10 MB that are sent: the models see a copy of ` +
      `${width}×${height} px, so answers may differ a little from those to the file.`,
  };
}

function preview(name, remark) {
  URL.revokeObjectURL(at("photo").src);
  at("photo").src = URL.createObjectURL(picture);
  at("photo").alt = name;
  at("photo").hidden = false;
  at("note").textContent = remark;
  at("note").hidden = !remark;
  at("hint").textContent = name;
  zoneBecomes("full", "Choose another picture");
}

function zoneBecomes(state, text) {
  at("zone").dataset.state = state;
  at("zone").setAttribute("aria-busy", String(state === "reading"));
  at("choose").textContent = text;
}

function trouble(message, again) {
  zoneBecomes(picture ? "full" : "empty", "Choose a picture");
  at("trouble").hidden = false;
  at("trouble").querySelector("p").textContent = message;
  at("trouble").querySelector("button").onclick = again;
  at("trouble").focus();
}

function say(text) {
  at("status").textContent = text;
}

// Ways in

function take(files) {
  if (!files.length) return;
  show(files[0], files.length > 1 ? `${files.length} files came; this is the first, ${files[0].name}.` : "");
}

/** Pixels of a tiny picture are shown as they are. */
function photoLoaded() {
  at("photo").classList.toggle("few", at("photo").naturalWidth < FEW_PX);
}

function photoFailed() {
  at("photo").hidden = true;
  at("note").hidden = false;
  at("note").append(" This browser cannot show the file itself. The models were asked all the same.");
}

async function showExample(name) {
  const signal = begin();
  try {
    const response = await request(`assets/${name}`, {}, signal);
    show(new File([await response.blob()], name));
  } catch (error) {
    if (!signal.aborted) trouble(error.message, () => showExample(name));
  }
}

function hover(event) {
  event.preventDefault();
  at("zone").classList.toggle("over", event.type === "dragover");
}

for (const input of [at("file"), at("camera")]) {
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
}
for (const select of [at("model"), at("other")]) select.addEventListener("change", choose);
for (const button of document.querySelectorAll("[data-file]")) {
  button.addEventListener("click", () => showExample(button.dataset.file));
}
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, hover);
document.addEventListener("drop", (event) => take([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
at("photo").addEventListener("load", photoLoaded);
at("photo").addEventListener("error", photoFailed);
start();
