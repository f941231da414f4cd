// How far the models of a page are from their references in WebAssembly: node answers_in_webassembly.mjs FOLDER

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const folder = resolve(process.argv[2]);
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf-8"));
const { caller, openModel, relativeError } = await import(pathToFileURL(`${folder}/session.js`));
const ort = await import(pathToFileURL(`${folder}/ort/${manifest.builds.wasm.module}`));

const errors = {};
for (const { file, record, input, reference } of manifest.models) {
  const bytes = new Uint8Array(readFileSync(`${folder}/${file}`));
  const options = { folder: `${pathToFileURL(`${folder}/ort`)}/`, provider: "wasm", threads: 1 };
  const { session } = await openModel(ort, bytes, options);
  errors[record.model] = relativeError(await caller(ort, session, input)(), reference);
  await session.release();
}
console.log(JSON.stringify(errors));
