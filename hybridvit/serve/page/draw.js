/**
 * What the server said, as elements of the page.
 *
 * Nothing here knows a task. An answer is JSON: lists of rows that have a "class", single values, and maps of numbers.
 * Every text is set as text, never as markup: names of classes come from files.
 */

const ENVELOPE = ["model", "task", "lies_in_picture", "colours", "size", "ms", "batch", "request_id"];
const PARTS = ["probability", "score", "share"]; // numbers from 0 to 1 that rows are ranked by
const SHOWN_ROWS = 8;
const SURE = 0.5; // a score from which a row counts

/** What two answers have in common that are the same, by the number of their rows. */
const SAME = {
  probability: "Same answer.",
  score: "The same classes are found.",
  share: "The same class has the largest share.",
};

/** What a number of a row is called in the head of its column. */
const HEADS = { share: "Share of the picture", bbox: "Box in px" };

/**
 * An element with its properties and children.
 * @param {string} tag
 * @param {object} properties
 * @param {...(Node|string)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The task's answer without what the server adds to every one. */
export function answerOf(body) {
  return Object.fromEntries(Object.entries(body).filter(([key]) => !ENVELOPE.includes(key)));
}

/** The answer in a few words, for people who hear the page. */
export function spoken(answer) {
  const rows = listsOf(answer).flatMap(([, list]) => list);
  if (!rows.length) return "answered";
  const [first] = rows;
  return `${first.class}, ${percent(first[partOf(first)])}`;
}

/** Everything that an answer says. */
export function drawn(body, networkMs) {
  const answer = answerOf(body);
  const lists = listsOf(answer);
  const parts = lists.flatMap(([key, rows]) => listed(lists.length > 1 ? inWords(key) : "", rows, body.colours ?? {}));
  return [headline(lists), ...parts, ...others(answer), timings(body, networkMs), asJson(answer)].filter(Boolean);
}

/** What two answers to one picture have in common: whether they are the same (null: not known), and a sentence. */
export function compared(one, other) {
  if (one.task !== other.task) return { same: null, text: "The models answer different questions." };
  const lists = [one, other].map((body) => listsOf(answerOf(body)).map(([, rows]) => rows));
  const [left, right] = lists.map((each) => each.flat());
  if (!lists.flat().length) return { same: null, text: numberDifferences(answerOf(one), answerOf(other)) };
  if (!left.length && !right.length) return { same: true, text: "Neither finds anything." };
  const part = partOf(left[0] ?? right[0]);
  const same = JSON.stringify(left.filter(counts).map(nameOf)) === JSON.stringify(right.filter(counts).map(nameOf));
  return { same, text: `${same ? SAME[part] : "Answers differ."} ${rowDifference(left, right, part)}`.trim() };
}

/** What is known of a model, in a line. */
export function factsOf(model) {
  const size = model.input_size && `${model.input_size[1]}×${model.input_size[0]} px`;
  const classes = model.num_classes > 1 && `${model.num_classes.toLocaleString("en")} classes`;
  return [model.task, model.architecture, model.runtime, model.precision, size, classes].filter(Boolean).join(" · ");
}

function listsOf(answer) {
  return Object.entries(answer).filter(([, value]) => isListed(value));
}

/** Whether a value is a list of rows, each with a class. */
function isListed(value) {
  return Array.isArray(value) && value.every((row) => row !== null && typeof row === "object" && "class" in row);
}

function partOf(row) {
  return PARTS.find((key) => key in row);
}

function nameOf(row) {
  return row.class;
}

/** Whether a row decides if answers are the same: the first of probabilities and shares, the sure ones of scores. */
function counts(row, place) {
  return "score" in row ? row.score >= SURE : place === 0;
}

function percent(value) {
  return `${(100 * value).toFixed(2)} %`;
}

function inWords(key) {
  const words = key.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function headline(lists) {
  const first = lists[0]?.[1][0];
  if (!first || !("probability" in first)) return null;
  return element("p", { className: "headline" }, element("strong", { textContent: first.class }));
}

function listed(caption, rows, colours) {
  if (!rows.length) {
    return [element("p", { className: "none", textContent: `${caption || "Found"}: nothing.` })];
  }
  const rest = rows.slice(SHOWN_ROWS);
  const parts = [table(caption, rows.slice(0, SHOWN_ROWS), colours)];
  if (rest.length) {
    parts.push(element("details", {}, element("summary", { textContent: `${rest.length} more` }), table("", rest, colours)));
  }
  return parts;
}

function table(caption, rows, colours) {
  const part = partOf(rows[0]);
  const places = Object.keys(rows[0]).filter((key) => isShort(rows[0][key]));
  const heads = ["Class", ...places.map((key) => HEADS[key] ?? inWords(key)), HEADS[part] ?? inWords(part ?? "")];
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })));
  const body = rows.map((row) => tableRow(row, places, part, colours[row.class]));
  return element(
    "table",
    { className: "rows" },
    ...(caption ? [element("caption", { textContent: caption })] : []),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
}

/** A row of a table; `colour` is that of its class in the picture, if it has one. */
function tableRow(row, places, part, colour) {
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--part", Math.min(1, Math.max(0, row[part] ?? 0)));
  const label = element("span", { className: "class", textContent: row.class });
  if (colour) {
    const patch = element("span", { className: "colour" });
    patch.style.background = colour;
    label.prepend(patch);
  }
  const name = element("th", { scope: "row" }, label, bar);
  const cells = places.map((key) => {
    return element("td", { className: "place", textContent: row[key].map(Math.round).join(", ") });
  });
  const number = element("td", { className: "number", textContent: part ? percent(row[part]) : "" });
  return element("tr", { className: part === "score" && row[part] < SURE ? "unsure" : "" }, name, ...cells, number);
}

/** Whether a value is a few numbers, as a box is. */
function isShort(value) {
  return Array.isArray(value) && value.length <= 4 && value.every(Number.isFinite);
}

/** What is no list of classes: single values, maps of numbers, and the names of what is only in the JSON. */
function others(answer) {
  const parts = [];
  const single = element("dl", { className: "values" });
  const long = [];
  for (const [key, value] of Object.entries(answer)) {
    if (key === "height" || key === "width" || isListed(value)) continue; // of the picture, or shown as a table
    if (key === "warning") {
      parts.unshift(element("p", { className: "note", textContent: value }));
    } else if (isShort(value) || value === null || typeof value !== "object") {
      single.append(...pair(inWords(key), [value].flat().join(", ")));
    } else if (Array.isArray(value)) {
      long.push(inWords(key).toLowerCase());
    } else {
      parts.push(mapOf(key, value));
    }
  }
  if (single.children.length) parts.unshift(single);
  const textContent = `Also in the JSON: ${long.join(", ")}.`;
  if (long.length) parts.push(element("p", { className: "facts", textContent }));
  return parts;
}

function pair(name, text) {
  return [element("dt", { textContent: name }), element("dd", { textContent: text })];
}

function mapOf(key, map) {
  const values = element("dl", { className: "values" });
  for (const [name, value] of Object.entries(map)) values.append(...pair(inWords(name), String(value)));
  return element("details", {}, element("summary", { textContent: inWords(key) }), values);
}

function timings(body, networkMs) {
  const rows = [...Object.entries(body.ms ?? {}), ["network", networkMs]];
  const list = element("dl", { className: "times" });
  for (const [name, value] of rows) {
    const number = element("dd", { textContent: `${value.toFixed(1)} ms` });
    list.append(element("div", {}, element("dt", { textContent: inWords(name) }), number));
  }
  return list;
}

function asJson(answer) {
  const text = element("pre", { tabIndex: 0 });
  const details = element("details", {}, element("summary", { textContent: "Answer as JSON" }), text);
  details.addEventListener("toggle", () => (text.textContent = JSON.stringify(answer, null, 2)), { once: true });
  return details;
}

function rowDifference(left, right, part) {
  const known = new Map(right.map((row) => [row.class, row[part]]));
  if (part === "score" || new Set(left.map(nameOf)).size < left.length) return "";
  const shared = left.filter((row) => known.has(row.class));
  const apart = shared.map((row) => [Math.abs(row[part] - known.get(row.class)), row]);
  if (!apart.length) return "No class is in both lists.";
  const [most, row] = apart.reduce((best, each) => (each[0] > best[0] ? each : best));
  return `Largest difference of ${part === "share" ? "shares" : "probabilities"}: ${most.toFixed(6)} (${row.class}).`;
}

function numberDifferences(one, other) {
  const said = [];
  for (const [key, value] of Object.entries(one)) {
    const [left, right] = [value, other[key]].map((each) => (Array.isArray(each) ? each.flat() : []));
    if (!left.length || left.length !== right.length || !left.every(Number.isFinite)) continue;
    const most = Math.max(...left.map((number, place) => Math.abs(number - right[place])));
    said.push(`${inWords(key).toLowerCase()} ${most.toFixed(3)}`);
  }
  return said.length ? `Largest differences: ${said.join(", ")}.` : "";
}
