// Restores in a worker, so that the page stays responsive. Receives { bytes, picture }. Sends { done, all } after each
// tile, then { restored, metadata }; or { error }.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

import { open, restore } from "./restoring.mjs";

onmessage = async ({ data: { bytes, picture } }) => {
  try {
    const model = await open(ort, bytes);
    const restored = await restore(model, picture, { onTile: (done, all) => postMessage({ done, all }) });
    postMessage({ restored, metadata: model.metadata });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) }); // WebAssembly may throw plain numbers
  }
};
