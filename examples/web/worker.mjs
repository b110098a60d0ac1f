// Restores beside the page, which stays alive meanwhile. Takes { bytes, picture }; answers with { done, all } for
// every tile, then with { restored, facts }, or with { error }.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

import { open, restore } from "./restoring.mjs";

onmessage = async ({ data: { bytes, picture } }) => {
  try {
    const model = await open(ort, bytes);
    const restored = await restore(model, picture, { onTile: (done, all) => postMessage({ done, all }) });
    postMessage({ restored, facts: model.facts });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) }); // WebAssembly throws bare numbers, too
  }
};
