// The protocol of hybridvit/measure/latency.py and conditions.py, with the same numbers: docs/measure.md says why.
// A shared list of cases (tests/golden/latency_cases.json) is checked in both languages.

export const MIN_ROUNDS = 8; // below this the interval of the median is the whole range and says nothing
export const WINDOW = 5; // calls of a window of the warm-up
export const STABLE = 0.03; // share by which two windows may differ
export const WARMUP_SECONDS = 10; // the longest warm-up
export const MOST_DRIFT = 0.05;
export const MOST_NOISE = 0.25;
export const MOST_SPREAD = 0.05;

/** A turn is so many calls in a row; it gives the milliseconds of each. @typedef {(calls: number) => Promise<number[]>} Turn */

/** Half of the values are below. @param {number[]} values */
export function median(values) {
  const ordered = inOrder(values);
  const middle = Math.floor(ordered.length / 2);
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** The nearest-rank quantile: the smallest value that at least `fraction` of all values do not exceed. */
export function quantile(values, fraction) {
  return inOrder(values)[Math.max(0, Math.ceil(fraction * values.length) - 1)];
}

/** The 95 % interval of the median from order statistics: no distribution is assumed. */
export function medianInterval(values, z = 1.96) {
  const ordered = inOrder(values);
  const halfWidth = (z * Math.sqrt(ordered.length)) / 2;
  const low = Math.max(0, Math.floor(ordered.length / 2 - halfWidth));
  const high = Math.min(ordered.length - 1, Math.ceil(ordered.length / 2 + halfWidth));
  return [ordered[low], ordered[high]];
}

/** The median of each turn: calls of one turn are alike, so a turn counts once. */
export function turnMedians(timesMs, callsPerTurn) {
  const turns = [];
  for (let start = 0; start < timesMs.length; start += callsPerTurn) {
    turns.push(median(timesMs.slice(start, start + callsPerTurn)));
  }
  return turns;
}

/**
 * The times of one candidate in a few numbers. A Worker counts as a process does in Python: once, by the median of its
 * turns, for the interval reaches over what differs between them too.
 * @param {{timesMs: number[], callsPerTurn: number, processes: number[]}} measured `processes` has the number of the
 *   Worker of each turn; empty means one.
 */
export function summary({ timesMs, callsPerTurn, processes }) {
  const turns = turnMedians(timesMs, callsPerTurn);
  const turnsMs = turnsOfEach(turns, processes);
  const medians = turnsMs.map(median);
  const [low, high] = medianInterval(turns);
  const [lowest, highest] = medianInterval(medians);
  return {
    medianMs: median(turns),
    lowMs: Math.min(low, lowest),
    highMs: Math.max(high, highest),
    p90Ms: quantile(timesMs, 0.9),
    p99Ms: quantile(timesMs, 0.99),
    rounds: turns.length,
    calls: timesMs.length,
    turnsMs,
    spread: Math.max(...medians) / Math.min(...medians) - 1,
  };
}

function turnsOfEach(turns, processes) {
  const numbers = processes.length ? processes : turns.map(() => 0);
  const known = [...new Set(numbers)].sort((one, other) => one - other);
  return known.map((number) => turns.filter((_, place) => numbers[place] === number));
}

/**
 * Call until two windows in a row take the same time to 3 %, or for 10 seconds; whether they did.
 * @param {Turn} turn
 * @param {() => number} clock seconds
 */
export async function warmUp(turn, clock = () => performance.now() / 1000) {
  const began = clock();
  let last = NaN;
  await turn(1);
  while (clock() - began < WARMUP_SECONDS) {
    const middle = median(await turn(WINDOW));
    if (Math.abs(middle - last) <= STABLE * last) return true;
    last = middle;
  }
  return false;
}

/** The order of a round: every other one runs backwards, so that a slow minute hits all alike. */
export function inTurn(candidates, round) {
  return round % 2 === 0 ? [...candidates] : [...candidates].reverse();
}

/**
 * By how much the last third of the rounds was slower than the first: each candidate's times relative to its median,
 * the median of all in each third. null for fewer than six rounds.
 * @param {number[][]} timesOfEach
 */
export function drift(timesOfEach, calls) {
  const first = [];
  const last = [];
  for (const times of timesOfEach) {
    const third = Math.floor(Math.floor(times.length / calls) / 3) * calls;
    if (third < 2 * calls) continue;
    const middle = median(times);
    first.push(median(times.slice(0, third)) / middle);
    last.push(median(times.slice(-third)) / middle);
  }
  return first.length ? median(last) / median(first) - 1 : null;
}

/** By how much one call in ten exceeds the median, or more. */
export function noise(timesMs) {
  return inOrder(timesMs)[Math.floor(0.9 * timesMs.length)] / median(timesMs) - 1;
}

function inOrder(values) {
  return [...values].sort((one, other) => one - other);
}
