#!/usr/bin/env node
// The pinned npm compiler as a filter: standard JSON on stdin, result on stdout. `--version` prints the version.
// solc's own `solcjs --standard-json` prints a line before the JSON and cuts it at 62 kB when stdout is a pipe.
"use strict";
const fs = require("fs");
const solc = require("solc");

if (process.argv.includes("--version")) {
  console.log(solc.version());
  process.exit(0);
}
const output = Buffer.from(solc.compile(fs.readFileSync(0, "utf8")));
for (let written = 0; written < output.length; ) {
  try {
    written += fs.writeSync(1, output, written);
  } catch (error) {
    if (error.code !== "EAGAIN") throw error; // the pipe is full: try again
  }
}
