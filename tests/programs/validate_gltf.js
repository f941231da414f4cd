// Print what Khronos' validator says of a .glb file, as JSON. NODE_PATH must lead to the package gltf-validator.
const { validateBytes } = require("gltf-validator");
const { readFileSync } = require("fs");

validateBytes(new Uint8Array(readFileSync(process.argv[2])), { maxIssues: 100 }).then((report) =>
  console.log(JSON.stringify(report)),
);
