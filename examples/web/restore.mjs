// Restore a PNG in Node, with a file from `pellucid export MODEL --out MODEL.onnx --whole --layout nhwc`.
//
//     node restore.mjs MODEL.onnx INPUT.png OUTPUT.png [TILE_PX]

import { existsSync, readFileSync, writeFileSync } from "node:fs";

import * as ort from "onnxruntime-web";
import { PNG } from "pngjs";

import { open, restore } from "./restoring.mjs";

function readPng(path) {
  const bytes = readFileSync(path);
  try {
    return PNG.sync.read(bytes);
  } catch (error) {
    throw new Error(`${path} is not a complete PNG: ${error.message}`);
  }
}

const GRAY = [0, 4]; // color types of PNG, without and with alpha
const RGBA = 6;

async function main(model, input, output, tilePx) {
  if (existsSync(output)) throw new Error(`${output} exists; choose another name`);
  const { height, width, colorType, data } = readPng(input);
  const opened = await open(ort, readFileSync(model));
  const isGray = opened.metadata.num_planes === 1;
  if (GRAY.includes(colorType) && !isGray) throw new Error(`${input} is gray; export the model with --colors gray`);
  const restored = await restore(opened, { height, width, samples: data }, { tilePx });
  const png = new PNG({ width: restored.width, height: restored.height });
  png.data.set(restored.samples);
  const opaque = { colorType: isGray ? 0 : 2, inputColorType: RGBA };
  writeFileSync(output, PNG.sync.write(png, opaque));
}

const args = process.argv.slice(2);
const tilePx = Number(args[3] ?? 256);
if (args.length < 3 || args.length > 4 || !Number.isInteger(tilePx) || tilePx < 1) {
  console.error("usage: node restore.mjs MODEL.onnx INPUT.png OUTPUT.png [TILE_PX]");
  process.exit(2);
}
main(...args.slice(0, 3), tilePx).catch((error) => {
  console.error(`restore: ${String(error?.message ?? error).replaceAll(/\s*\n\s*/g, " ")}`);
  process.exit(1);
});
