// The order of a measurement: heats of a few candidates that take turns in rounds, and nothing kept of hidden minutes.

import { LeftOut, wayInWords } from "./candidate.js";
import { MIN_ROUNDS, drift, inTurn, median } from "./latency.js";

const UNTIMED_TURNS = 2; // after the page was hidden: caches are cold, and the clock of the processor is low

/** Notices when the page is hidden or frozen, for what is timed then is no time of the model's. */
export class Presence {
  constructor(page = document) {
    this.page = page;
    this.numAbsences = 0;
    page.addEventListener("visibilitychange", () => this.page.hidden && (this.numAbsences += 1));
    page.addEventListener("freeze", () => (this.numAbsences += 1));
  }

  /** Resolves once the page is seen. */
  async seen() {
    while (this.page.hidden) {
      await new Promise((resolve) => this.page.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

/** All that happened: what the page draws and the result is made of. */
export class Run {
  /**
   * @param {Candidate[]} candidates the first that can be timed is the anchor, which takes part in every heat
   * @param {{rounds: number, calls: number, alive: number}} options `rounds`: MIN_ROUNDS at least; `alive`: Workers at
   *   a time
   * @param {Presence} presence
   * @param {(run: Run) => void} changed called after each step
   */
  constructor(candidates, options, presence, changed) {
    Object.assign(this, { candidates, presence, changed });
    this.options = { ...options, rounds: Math.max(options.rounds, MIN_ROUNDS) };
    this.skipped = []; // {candidate, reason}
    this.drifts = [];
    this.numInterrupted = 0;
    this.text = "";
    this.isStopped = false;
    this.isComplete = false;
    this.heat = [];
    this.round = 0;
    this.waiting = [...candidates];
  }

  /** The candidates that were timed, without those that were lost on their way. */
  get measured() {
    return this.candidates.filter((each) => each.timesMs.length && !this.isLost(each));
  }

  isLost(candidate) {
    return this.skipped.some((left) => left.candidate === candidate);
  }

  async start() {
    while (this.waiting.length && !this.isStopped) {
      this.heat = [];
      this.round = 0;
      const [anchor] = this.measured;
      if (anchor && (await this.opened(anchor))) this.heat.push(anchor);
      while (this.waiting.length && this.heat.length < this.options.alive && !this.isStopped) {
        const next = this.waiting.shift();
        if (await this.opened(next)) this.heat.push(next);
      }
      if (this.heat.some((each) => each !== anchor)) await this.rounds();
      this.heat.forEach((each) => each.close());
    }
    this.candidates.forEach((each) => each.close());
    this.isComplete = !this.isStopped;
    this.say("");
  }

  stop() {
    this.isStopped = true;
    this.say("stopping");
  }

  async rounds() {
    const { rounds, calls } = this.options;
    const before = new Map(this.heat.map((each) => [each, each.timesMs.length]));
    for (this.round = 0; this.round < rounds && !this.isStopped; ) {
      for (const candidate of inTurn(this.heat, this.round)) {
        if (this.isStopped) break;
        await this.guarded(candidate, () => this.turn(candidate, calls));
      }
      this.heat = this.heat.filter((each) => !this.isLost(each));
      if (!this.heat.length) return;
      this.round += 1;
      this.say(`round ${this.round} of ${rounds}`);
    }
    this.drifts.push(drift(this.heat.map((each) => each.timesMs.slice(before.get(each))), calls));
  }

  /** A turn that nothing disturbed: one during which the page was hidden is thrown away, and comes again. */
  async turn(candidate, calls) {
    for (;;) {
      const absences = this.presence.numAbsences;
      await this.presence.seen();
      const timesMs = await candidate.turn(calls);
      if (this.presence.numAbsences === absences && !this.presence.page.hidden) return candidate.keep(timesMs);
      this.numInterrupted += 1;
      this.say("paused while the page is hidden");
      await this.presence.seen();
      for (let turn = 0; turn < UNTIMED_TURNS; turn += 1) await candidate.turn(calls);
    }
  }

  /** Whether a candidate is ready to take turns. */
  async opened(candidate) {
    await this.presence.seen();
    this.say(`fetching ${candidate.label}`);
    await this.guarded(candidate, async () => {
      await candidate.open((text) => this.say(text));
      this.checkOnlyOne(candidate);
    });
    return candidate.worker !== null;
  }

  /** Threads may be fewer than asked for, and then another candidate may be the same. */
  checkOnlyOne(candidate) {
    const isSame = (each) =>
      each !== candidate &&
      each.model === candidate.model &&
      each.way.provider === candidate.way.provider &&
      each.threads === candidate.threads;
    if (this.measured.some(isSame) || this.heat.some(isSame)) {
      throw new LeftOut(`it is measured with ${wayInWords("wasm", candidate.threads)} already, since more did not run`);
    }
  }

  async guarded(candidate, action) {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof LeftOut)) throw error;
      candidate.close();
      this.skipped.push({ candidate, reason: error.message });
      this.say(`left out: ${candidate.label}`);
    }
  }

  say(text) {
    this.text = text;
    this.changed(this);
  }

  /** Seconds that the rounds to come will take, from the turns there were; null before the first. */
  get secondsLeft() {
    const known = this.measured;
    if (!known.length) return null;
    const { rounds, calls, alive } = this.options;
    const turnSeconds = (each) => (median(each.timesMs) * (calls + 1)) / 1000;
    const usual = median(known.map(turnSeconds));
    const ofHeat = this.heat.map((each) => (each.timesMs.length ? turnSeconds(each) : usual));
    const sum = ofHeat.reduce((total, seconds) => total + seconds, 0) * (rounds - this.round);
    const heats = Math.ceil(this.waiting.length / Math.max(1, alive - 1));
    return sum + (this.waiting.length + heats) * (usual * rounds + 2);
  }

  /** The share of what is asked for that is done, for a bar. */
  get share() {
    const shareOf = (each) => (this.isLost(each) ? 1 : Math.min(1, each.processes.length / this.options.rounds));
    return this.candidates.reduce((sum, each) => sum + shareOf(each), 0) / this.candidates.length;
  }
}
