// Service worker: gives every answer the headers that threads need, where a host cannot set them, and keeps all files,
// so that the page works without a network.

const CACHE = "hybridvit-bench onnxruntime-web 1.30.0"; // whose files never change under their names, nor do models'
const FOR_GOOD = /\/(ort|models)\/[^/]+$/;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const isOurs = request.method === "GET" && request.url.startsWith(self.registration.scope);
  if (isOurs && !request.headers.has("range")) event.respondWith(answered(request));
});

/** From the cache what never changes; else from the network, or without one from the cache. */
async function answered(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept && FOR_GOOD.test(new URL(request.url).pathname)) return isolated(kept);
  try {
    const answer = await fetch(request);
    if (answer.ok && answer.type === "basic") await cache.put(withoutQuery(request.url), answer.clone());
    return isolated(answer);
  } catch (error) {
    if (kept) return isolated(kept);
    throw error;
  }
}

function withoutQuery(address) {
  return address.split(/[?#]/)[0];
}

function isolated(answer) {
  if (answer.status === 0 || answer.redirected) return answer;
  const headers = new Headers(answer.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}
