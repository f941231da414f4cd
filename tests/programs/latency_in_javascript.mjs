// What latency.js makes of the shared cases, as JSON: node latency_in_javascript.mjs FOLDER_OF_THE_PAGE CASES.json

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const latency = await import(pathToFileURL(`${folder}/latency.js`));
const { fixedInput } = await import(pathToFileURL(`${folder}/session.js`));
const cases = JSON.parse(readFileSync(file, "utf-8"));

const latencies = cases.latencies.map(({ times_ms: timesMs, calls_per_turn: callsPerTurn, processes }) => {
  const found = latency.summary({ timesMs, callsPerTurn, processes });
  return { ...found, drift: latency.drift([timesMs], callsPerTurn) };
});

const warmUps = [];
for (const { windows, seconds_per_call: seconds } of cases.warm_ups) {
  let calls = 0;
  const turn = async (wanted) => windows.slice(calls, (calls += wanted));
  warmUps.push({ isStable: await latency.warmUp(turn, () => calls * seconds), calls });
}

const { candidates, rounds } = cases.order;
const { times_ms: timesOfEach, calls_per_turn: calls } = cases.drift_of_several;
const found = {
  constants: Object.fromEntries(Object.keys(cases.constants).map((name) => [name, latency[name]])),
  latencies,
  drift: latency.drift(timesOfEach, calls),
  warmUps,
  order: rounds.map((_, round) => latency.inTurn(candidates, round).join("")),
  images: [...fixedInput({ shape: [1, 3, 5, 7], dtype: "float32", seed: 3 })],
  pixels: [...fixedInput({ shape: [1, 5, 7, 3], dtype: "uint8", seed: 1 })],
};
console.log(JSON.stringify(found));
