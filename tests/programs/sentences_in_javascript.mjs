// What the page says of results, as JSON: node sentences_in_javascript.mjs FOLDER_OF_THE_PAGE RESULTS

import { pathToFileURL } from "node:url";

const [folder, results] = process.argv.slice(2);
const { sentences } = await import(pathToFileURL(`${folder}/result.js`));
const { paretoFront } = await import(pathToFileURL(`${folder}/chart.js`));

const said = JSON.parse(results).map((records) => ({
  sentences: sentences(records),
  front: paretoFront(records).map((each) => each.model),
}));
console.log(JSON.stringify(said));
