// What this browser is and can: without it a time is a number about nothing.

const STEPS = 30; // of the clock that are looked at
const USUAL_THREADS = 4; // more of them reach the slow cores of a phone

/** Ways to run that there are here, and what a result says of the machine. */
export async function lookAround(manifest) {
  const gpu = await adapter();
  const isolated = globalThis.crossOriginIsolated === true;
  const cores = navigator.hardwareConcurrency || 1;
  const details = await agentDetails();
  return {
    isolated,
    isSecure: globalThis.isSecureContext === true,
    cores,
    memoryGib: navigator.deviceMemory ?? null,
    isPhone: isSmall(),
    gpu,
    hasWebNN: "ml" in navigator,
    clockStepMs: clockStep(),
    browser: browserName(details),
    system: details.system,
    processor: details.processor,
    userAgent: navigator.userAgent,
    threads: isolated ? threadCounts(cores) : [1],
    webgpuModule: gpu && webgpuBuild(manifest)?.module,
  };
}

/** 1, 2, 4 ... up to the cores. */
function threadCounts(cores) {
  return [1, 2, 4, 8, 16].filter((count) => count <= cores);
}

/** The number of threads that most should take. */
export function usualThreads(counts) {
  return Math.max(...counts.filter((count) => count <= USUAL_THREADS));
}

/** The build for WebGPU that this browser runs; undefined where the page has none. */
export function webgpuBuild(manifest) {
  return manifest.builds["Suspending" in WebAssembly ? "jspi" : "asyncify"];
}

/** Little memory, or a touch screen that does not say. */
function isSmall() {
  if (navigator.deviceMemory) return navigator.deviceMemory <= 4;
  return navigator.maxTouchPoints > 0 && matchMedia("(pointer: coarse)").matches;
}

async function adapter() {
  try {
    const found = await navigator.gpu?.requestAdapter();
    if (!found) return null;
    const { vendor = "", architecture = "", description = "" } = found.info ?? {};
    const name = description || [vendor, architecture].filter(Boolean).join(" ") || "unnamed";
    return { name, hasHalf: found.features.has("shader-f16") };
  } catch {
    return null; // some browsers have the interface and refuse every request
  }
}

/** The smallest step of the clock, in milliseconds: 0.005 where the page is isolated, 0.1 or more elsewhere. */
function clockStep() {
  let smallest = Infinity;
  for (let step = 0; step < STEPS; step += 1) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    smallest = Math.min(smallest, now - start);
  }
  return Math.round(smallest * 1e4) / 1e4;
}

async function agentDetails() {
  const agent = navigator.userAgent;
  const data = navigator.userAgentData;
  if (!data) return { brands: [], system: systemIn(agent), processor: "unknown" };
  const wanted = ["model", "platformVersion", "architecture", "fullVersionList"];
  const more = await data.getHighEntropyValues(wanted).catch(() => ({}));
  const system = [data.platform, more.platformVersion].filter(Boolean).join(" ") || systemIn(agent);
  return {
    brands: more.fullVersionList ?? data.brands,
    system,
    processor: more.model || more.architecture || "unknown",
  };
}

function systemIn(agent) {
  return /\(([^;)]+(?:; [^;)]+)?)/.exec(agent)?.[1] ?? "unknown";
}

function browserName({ brands }) {
  const real = brands.filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  const best = real.find(({ brand }) => brand !== "Chromium") ?? real[0];
  if (best) return `${best.brand} ${best.version}`;
  const agent = navigator.userAgent;
  const [, name, version] = /(Firefox|Edg|OPR|Chrome)\/([\d.]+)/.exec(agent) ?? [];
  if (name) return `${name} ${version}`;
  const safari = /Version\/([\d.]+).*Safari/.exec(agent);
  return safari ? `Safari ${safari[1]}` : "unknown";
}
