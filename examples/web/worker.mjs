// Restores in a worker, so that the page stays responsive. Receives { bytes, picture }. Sends { done, all } after each
// tile, then { restored, metadata, provider }; or { error }.

import { open, restore } from "./restoring.mjs";

function loadRuntime(provider) {
  return import(`./node_modules/onnxruntime-web/dist/ort.${provider}.bundle.min.mjs`).catch(() => {
    throw new Error("the runtime cannot be loaded; run `npm install` in this folder first");
  });
}

/** Whether there is a GPU, not only a slow emulation of one. */
async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function run(provider, bytes, picture) {
  const model = await open(await loadRuntime(provider), bytes, [provider]);
  const restored = await restore(model, picture, { onTile: (done, all) => postMessage({ done, all }) });
  return { restored, metadata: model.metadata, provider };
}

onmessage = async ({ data: { bytes, picture } }) => {
  try {
    const byGpu = (await hasGpu()) ? run("webgpu", bytes, picture).catch(() => null) : null;
    postMessage((await byGpu) ?? (await run("wasm", bytes, picture)));
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) }); // WebAssembly may throw plain numbers
  }
};
