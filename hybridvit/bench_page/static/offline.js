// Isolation and work without a network, by the service worker in isolate.js.

const RELOADED = "hybridvit-bench-reloaded";
const CONTROL_SECONDS = 3; // after a forced reload a service worker controls nothing, and never says so

/** Let a service worker isolate the page, which takes one reload where the host sets no headers, and keep its files. */
export async function isolateItself() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("isolate.js");
    await controlled();
  } catch {
    return; // private windows have none: the page works without
  }
  if (crossOriginIsolated || sessionStorage.getItem(RELOADED)) return;
  sessionStorage.setItem(RELOADED, "yes");
  location.reload();
  await new Promise(() => {}); // nothing more of this page
}

function controlled() {
  const { serviceWorker } = navigator;
  return new Promise((resolve) => {
    if (serviceWorker.controller) resolve();
    serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    setTimeout(resolve, CONTROL_SECONDS * 1000);
  });
}

/**
 * Fetch everything that will be used, so that no clock waits for it; whether it is kept for work without a network.
 * @param {(text: string) => void} say
 */
export async function fetchAll({ manifest, environment }, say) {
  const modules = [manifest.builds.wasm.module, environment.webgpuModule];
  const builds = Object.values(manifest.builds).filter(({ module }) => modules.includes(module));
  const files = builds.flatMap((build) => Object.entries(build.files).map(([name, bytes]) => [`ort/${name}`, bytes]));
  files.push(...manifest.models.map((model) => [model.file, model.bytes]));
  const all = files.reduce((sum, [, bytes]) => sum + bytes, 0);
  for (const name of ["./", "manifest.json", ...manifest.page]) await (await fetch(name)).arrayBuffer();
  let done = 0;
  for (const [file, bytes] of files) {
    say(`Loading ${(done / 1e6).toFixed(0)} of ${(all / 1e6).toFixed(0)} MB`);
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(`${file} could not be loaded (${answer.status}).`);
    await answer.arrayBuffer();
    done += bytes;
  }
  if (!navigator.serviceWorker?.controller) return false;
  await forgetOthers(manifest.models.map((model) => new URL(model.file, location.href).href));
  return true;
}

/** Give back the space of models that an earlier page at this place had. */
async function forgetOthers(models) {
  const folder = new URL("models/", location.href).href;
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const { url } of await cache.keys()) {
      if (url.startsWith(folder) && !models.includes(url)) await cache.delete(url);
    }
  }
}
