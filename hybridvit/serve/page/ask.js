/** Requests to the service, and what becomes of those that it does not answer. */

const PATIENCE_MS = 60_000; // twice the server's own deadline

/** States of the page by the server's code of an error; all other codes are a refusal. */
const STATES = { overloaded: "overloaded", worker_lost: "overloaded", stopping: "stopping" };

/** Why there is no answer. */
export class Refusal extends Error {
  /**
   * @param {"refused"|"overloaded"|"stopping"|"gone"} state
   * @param {string} message what the server said, or that it said nothing
   * @param {boolean} mayPass whether the same request may be answered later
   * @param {number} retryAfterS when that may be
   */
  constructor(state, message, mayPass = true, retryAfterS = 0) {
    super(message);
    this.state = state;
    this.mayPass = mayPass;
    this.retryAfterS = retryAfterS;
  }
}

/** The server's response. Raises Refusal; the signal's reason where that was aborted. */
export async function request(address, options, signal) {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(address, { ...options, signal: AbortSignal.any([signal, limit]) });
  } catch {
    signal.throwIfAborted();
    const what = limit.aborted ? "did not answer within a minute" : "cannot be reached";
    throw new Refusal("gone", `The server ${what}. Is it still running?`);
  }
  if (response.ok) return response;
  throw await refusalOf(response);
}

async function refusalOf(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.message ?? `The server answered with ${response.status} and gave no reason.`;
  const retryAfterS = Number(response.headers.get("Retry-After")) || 1;
  return new Refusal(STATES[body.error] ?? "refused", message, response.status >= 500, retryAfterS);
}

/**
 * The response to a picture. A server that is too busy is asked once more, after the time that it names.
 * @param {Blob} picture
 * @param {Record<string, string>} query
 * @param {AbortSignal} signal
 * @param {(seconds: number) => void} waits called before the pause
 */
export async function predict(picture, query, signal, waits) {
  const address = `predict?${new URLSearchParams(query)}`;
  const options = { method: "POST", body: picture, headers: { "Content-Type": "application/octet-stream" } };
  try {
    return await request(address, options, signal);
  } catch (error) {
    if (error.state !== "overloaded") throw error;
    waits(error.retryAfterS);
    await pause(1000 * error.retryAfterS, signal);
    return request(address, options, signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}
