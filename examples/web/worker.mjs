// Restores in a worker, so that the page stays responsive. Receives { bytes, picture }. Sends { done, all } after each
// tile, then { restored, metadata, provider }; or { error }.

import { open, restore } from "./restoring.mjs";

function loadRuntime(provider) {
  return import(`./node_modules/onnxruntime-web/dist/ort.${provider}.bundle.min.mjs`).catch(() => {
    throw new Error("the runtime cannot be loaded; run `npm install` in this folder first");
  });
}

onmessage = async ({ data: { bytes, picture } }) => {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    const provider = adapter && !adapter.info.isFallbackAdapter ? "webgpu" : "wasm"; // a fallback is a slow emulation
    const model = await open(await loadRuntime(provider), bytes, [provider]);
    const restored = await restore(model, picture, { onTile: (done, all) => postMessage({ done, all }) });
    postMessage({ restored, metadata: model.metadata, provider });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) }); // WebAssembly may throw plain numbers
  }
};
