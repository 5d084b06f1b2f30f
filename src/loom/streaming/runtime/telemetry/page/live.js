// The live picture of a flow: asks for live.json every two seconds and shows it. Whatever comes from the flow (names of topics,
// texts of errors) is only ever put into text nodes and attributes, never parsed as HTML.
"use strict";

const EVERY_MS = 2000, PATIENCE_MS = 8000, SAMPLES = 180;
const SVG = "http://www.w3.org/2000/svg";
const STATES = {
  "running": ["good", "●"], "stopping": ["warn", "◆"], "not ready": ["warn", "▲"], "stalled": ["bad", "■"], "failed": ["bad", "■"],
};
const BOX = { width: 232, least: 168, height: 114, along: 28, across: 16 };
const MOST_ERRORS = 12, LATE_S = 10;

const at = (id) => document.getElementById(id);
let last = null, answeredAt = Date.now(), paused = false;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) if (value != null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null && child !== ""));
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function number(value) {
  if (value == null) return "–";
  if (value >= 10e6) return (value / 1e6).toFixed(1) + " M";
  const digits = value >= 10 || Number.isInteger(value) ? 0 : value >= 1 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function span(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return (seconds * 1e6).toFixed(0) + " µs";
  if (seconds < 1) return number(seconds * 1000) + " ms";
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const rate = (node, value) => (node.estimated ? "≈ " : "") + number(value);

// ---- a line of the last 15 minutes

function spark(series, { label, now, show = number, bad = false, down = [] }) {
  const values = series.slice(-SAMPLES + 1).concat([now]);
  const known = values.filter((value) => value != null);
  const most = Math.max(...known, 0), height = 32, first = SAMPLES - values.length;
  const y = (value) => (most > 0 ? height - 1 - (value / most) * (height - 3) : height - 1).toFixed(1);
  let line = "", area = "", open = false, from = 0;
  values.forEach((value, index) => {
    const x = first + index;
    if (value == null) { if (open) area += `L${x - 1} ${height}L${from} ${height}Z`; open = false; return; }
    if (!open) { from = x; area += `M${x} ${height}`; }
    line += `${open ? "L" : "M"}${x} ${y(value)}`;
    area += `L${x} ${y(value)}`;
    open = true;
  });
  if (open) area += `L${SAMPLES - 1} ${height}L${from} ${height}Z`;
  const text = `${label}, last 15 minutes: now ${show(now)}, at most ${known.length ? show(most) : "–"}`;
  const gone = [], samples = down.slice(-SAMPLES + 1), begin = SAMPLES - 1 - samples.length;
  samples.forEach((ready, index) => {
    if (ready !== 0) return;
    const end = samples.findIndex((one, at) => at > index && one !== 0), width = (end < 0 ? samples.length : end) - index;
    if (index === 0 || samples[index - 1] !== 0) gone.push(draw("rect", { class: "down", x: begin + index, y: 0, width, height }));
  });
  return draw("svg", {
    class: bad ? "spark bad" : "spark", viewBox: `0 0 ${SAMPLES - 1} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": text,
  }, draw("title", {}, text), draw("path", { class: "axis", d: `M0 ${height}H${SAMPLES}` }), ...gone,
  draw("path", { class: "area", d: area }), draw("path", { class: "line", d: line }));
}

// ---- the head of the page

function head(told) {
  const [mood, sign] = STATES[told.state] || ["warn", "?"];
  document.title = `${sign} ${told.flow} · Loom`;
  at("flow").textContent = told.flow;
  const state = at("state"), text = `${sign} ${told.state}`;
  state.className = `state ${mood}`;
  if (state.textContent !== text) state.textContent = text;
  const many = told.process.of > 1 ? `process ${told.process.index} of ${told.process.of}, ` : "";
  at("about").textContent = `${told.delivery}, group ${told.group} · ${many}${told.process.instance} · up `
    + `${span(told.at - told.process.started_at)} · Loom ${told.process.version}`;
  const totals = told.totals, rest = [];
  for (const name of ["refused", "lost", "retries", "recoveries", "rebalances", "restarts"]) {
    if (totals[name]) rest.push(`${name} ${number(totals[name])}`);
  }
  at("totals").textContent = `Since the start: ${number(totals.read)} read = ${number(totals.written)} written + `
    + `${number(totals.dropped)} dropped + ${number(totals.failed)} failed, and those in progress; ${number(totals.durable)} results durable`
    + (rest.length ? `; ${rest.join(", ")}` : "");
}

function problems(told, silence) {
  const found = [];
  if (silence > PATIENCE_MS) {
    found.push(["No answer", `for ${span(silence / 1000)}: the process or the way to it is gone. What is shown is old.`]);
  }
  if (told) {
    const checks = [...told.health, ...told.readiness].filter((check) => !check.ok);
    for (const check of checks) found.push([check.name, check.detail || "not right"]);
  }
  const box = at("problems");
  box.hidden = !found.length;
  const lines = found.map(([name, detail]) => make("p", {}, make("strong", {}, name), `: ${detail}`));
  if (box.textContent !== lines.map((line) => line.textContent).join("")) box.replaceChildren(...lines);
  document.body.classList.toggle("old", silence > PATIENCE_MS);
}

function tiles(told) {
  const { now, history, totals } = told, down = history.ready;
  const tile = (label, value, unit, more, series, current, options = {}) => make("div", { class: options.alarm ? "tile bad" : "tile" },
    make("p", { class: "label" }, label),
    make("p", { class: "value" }, value, unit ? make("small", {}, ` ${unit}`) : null),
    make("p", { class: "more" }, more),
    spark(series, { label, now: current, down, ...options }));
  at("now").replaceChildren(
    tile("Records read", number(now.read_per_s), "/s", `${number(totals.read)} in all`, history.read_per_s, now.read_per_s),
    tile("Results written", number(now.written_per_s), "/s", `${number(totals.durable)} durable`, history.written_per_s, now.written_per_s),
    tile("Failed records", number(now.failed_per_s), "/s", `${number(totals.failed)} in all`, history.failed_per_s, now.failed_per_s,
      { bad: true, alarm: now.failed_per_s > 0 }),
    tile("Lag", number(now.lag_records), "records", now.lag_records == null ? "not known" : now.lag_records ? `up to ${span(now.lag_seconds)} behind` : "up to date",
      history.lag_records, now.lag_records),
    tile("Latency, 95 %", span(now.latency_p95_s), "", `half within ${span(now.latency_p50_s)}`, history.latency_p95_s, now.latency_p95_s,
      { show: span }),
    tile("In the flow", number(now.in_flight + now.buffered), "records", `${number(now.in_flight)} in flight, ${number(now.buffered)} kept`,
      history.in_flight.map((value, index) => (value == null ? null : value + (history.buffered[index] || 0))), now.in_flight + now.buffered),
  );
}

// ---- the graph

function placed(nodes, edges) {
  // Each node one rank behind the last of those before it; within a rank in the order of what is before them.
  const before = new Map(nodes.map((node) => [node.id, []]));
  for (const edge of edges) if (before.has(edge.source) && before.has(edge.target)) before.get(edge.target).push(edge.source);
  const rank = new Map(), ranks = [];
  const rankOf = (id) => {
    if (!rank.has(id)) { rank.set(id, 0); rank.set(id, Math.max(-1, ...before.get(id).map(rankOf)) + 1); }
    return rank.get(id);
  };
  for (const node of nodes) (ranks[rankOf(node.id)] ||= []).push(node.id);
  const place = new Map();
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  for (const row of ranks) {
    const wanted = row.map((id, index) => [id, before.get(id).length ? mean(before.get(id).map((one) => place.get(one))) : index]);
    wanted.sort((one, other) => one[1] - other[1]);
    // As near to what is before them as their width lets them, and each group in the middle of it.
    let next = -Infinity;
    const slots = wanted.map(([, want]) => { next = Math.max(want, next + 1); return next; });
    const shift = mean(wanted.map(([, want], index) => want - slots[index]));
    wanted.forEach(([id], index) => place.set(id, slots[index] + shift));
  }
  const least = Math.min(...place.values());
  for (const [id, value] of place) place.set(id, value - least);
  return { rank, place, before, length: ranks.length, breadth: Math.max(...place.values()) + 1 };
}

function nodeBox(node, ways, flow, tag = "li") {
  const plain = node.title.startsWith(flow + ".") ? node.title.slice(flow.length + 1) : node.title;
  const name = node.topics.length && node.form === "store" ? node.topics.join(", ") : plain;
  const out = node.left != null && !node.topics.length ? `→ ${number(node.left_per_s)}/s` : `${number(node.came)} in all`;
  const notes = [];
  if (node.failed) notes.push(make("span", { class: "bad" }, `${number(node.failed)} failed`));
  if (node.dropped) notes.push(`${number(node.dropped)} dropped`);
  if (node.retries) notes.push(make("span", { class: "warn" }, `${number(node.retries)} retries`));
  if (node.open_circuits) notes.push(make("span", { class: "bad" }, "circuit open"));
  if (node.buffered) notes.push(`${number(node.buffered)} kept`);
  const joined = notes.flatMap((note, index) => (index ? [" · ", note] : [note]));
  const label = ways.length ? `${ways.join(", ")} →` : (node.said[0] || "").replace(/^\([^)]*\): /, "").replaceAll("->", "→");
  const took = node.batch_s == null || node.topics.length ? null : make("span", {}, `${span(node.batch_s)}/batch`);
  return make(tag, { class: `node ${node.form}${node.failed_per_s > 0 ? " failing" : ""}`, title: [node.title, ...node.said].join("\n") },
    make("p", { class: "way" }, make("span", {}, label), took),
    make("h3", {}, name),
    make("p", { class: "rate" }, node.came_per_s == null ? "–" : `${rate(node, node.came_per_s)}/s`, make("small", {}, ` ${out}`)),
    make("p", { class: "notes" }, ...joined),
    spark(node.history.came_per_s, { label: `${name}: records a second`, now: node.came_per_s }));
}

function graph(told) {
  const box = at("graph"), narrow = window.innerWidth <= 680;
  const main = told.edges.filter((edge) => !edge.errors);
  const fed = new Set(told.edges.filter((edge) => edge.errors).map((edge) => edge.target));
  for (const edge of main) fed.delete(edge.target);
  const nodes = told.nodes.filter((node) => !fed.has(node.id));
  const titles = (id, edges) => edges.filter((edge) => edge.target === id && edge.title).map((edge) => edge.title);
  const layout = placed(nodes, main);
  const room = box.clientWidth - 30, wide = room >= layout.length * (BOX.width + BOX.along) - BOX.along;
  const fitting = Math.floor((room + BOX.across) / layout.breadth - BOX.across);
  const size = wide ? BOX.width : Math.max(BOX.least, Math.min(BOX.width, fitting));
  const map = make("ul", { class: "map" });
  const along = (wide ? size : BOX.height) + BOX.along, across = (wide ? BOX.height : size) + BOX.across;
  const order = narrow ? depthFirst(nodes, layout) : nodes;
  const corners = new Map();
  order.forEach((node, index) => {
    const item = nodeBox(node, titles(node.id, main), told.flow);
    let x, y, width = size;
    if (narrow) {
      const indent = Math.min(layout.rank.get(node.id), 6) * 8;
      [x, y, width] = [indent, index * (BOX.height + 10), box.clientWidth - 22 - indent];
    } else {
      const deep = layout.rank.get(node.id) * along, beside = layout.place.get(node.id) * across;
      [x, y] = wide ? [deep, beside] : [beside, deep];
    }
    Object.assign(item.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${BOX.height}px` });
    corners.set(node.id, [x, y]);
    map.append(item);
  });
  const right = Math.max(...[...corners.values()].map(([x]) => x)) + size;
  const bottom = Math.max(...[...corners.values()].map(([, y]) => y)) + BOX.height;
  Object.assign(map.style, { width: narrow ? "auto" : `${right}px`, height: `${bottom}px` });
  if (!narrow) map.prepend(make("li", { "aria-hidden": "true" }, ways(main, corners, wide, size, right, bottom)));
  const failed = told.nodes.filter((node) => fed.has(node.id));
  const lane = make("ul", { class: "failed" }, make("li", { class: "failed-title" }, "Where failed records go"),
    ...failed.map((node) => nodeBox(node, titles(node.id, told.edges), told.flow)));
  box.replaceChildren(map, ...(failed.length ? [lane] : []));
}

function depthFirst(nodes, layout) {
  const after = new Map(nodes.map((node) => [node.id, []])), byId = new Map(nodes.map((node) => [node.id, node]));
  for (const [id, sources] of layout.before) if (sources.length) after.get(sources[sources.length - 1]).push(id);
  const found = [], visit = (id) => { found.push(byId.get(id)); after.get(id).forEach(visit); };
  for (const node of nodes) if (!layout.before.get(node.id).length) visit(node.id);
  return found;
}

function ways(edges, corners, wide, size, right, bottom) {
  const paths = edges.filter((edge) => corners.has(edge.source) && corners.has(edge.target)).map((edge) => {
    const [x1, y1] = corners.get(edge.source), [x2, y2] = corners.get(edge.target);
    if (wide) {
      const from = [x1 + size, y1 + BOX.height / 2], to = [x2, y2 + BOX.height / 2], half = (from[0] + to[0]) / 2;
      return draw("path", { d: `M${from}C${half} ${from[1]} ${half} ${to[1]} ${to}`, "marker-end": "url(#tip)" });
    }
    const from = [x1 + size / 2, y1 + BOX.height], to = [x2 + size / 2, y2], half = (from[1] + to[1]) / 2;
    return draw("path", { d: `M${from}C${from[0]} ${half} ${to[0]} ${half} ${to}`, "marker-end": "url(#tip)" });
  });
  const tip = draw("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    draw("path", { d: "M1 1L7 4L1 7" }));
  return draw("svg", { width: right, height: bottom, class: "ways", "aria-hidden": "true" }, draw("defs", {}, tip), ...paths);
}

// ---- errors and partitions

function errors(told) {
  // The same again and again is told once, with the latest.
  const alike = new Map();
  for (const error of told.errors) {
    const key = JSON.stringify([error.kind, error.step, error.error_type, error.reason]), known = alike.get(key);
    if (known) { known.count += error.count; known.first_at = Math.min(known.first_at, error.first_at); }
    else alike.set(key, { ...error });
  }
  const found = [...alike.values()].slice(0, MOST_ERRORS).map((error) => {
    const place = error.topic == null ? null : `${error.topic}[${error.partition}] offset ${error.offset}`;
    const source = error.raised_at == null ? null : error.raised_at.split("/").pop();
    const when = error.count > 1 ? `${number(error.count)} times from ${clock(error.first_at)} to ${clock(error.last_at)}` : clock(error.last_at);
    return make("li", { class: "error" },
      make("div", { class: "what" }, make("span", { class: "count" }, `${error.kind} in ${error.step}`), make("span", { class: "reason" }, error.reason)),
      make("p", { class: "where", title: error.raised_at }, [when, error.error_type, source, place].filter((part) => part != null).join(" · ")));
  });
  return found.length ? [make("ul", { class: "errors" }, ...found)] : [make("p", { class: "none" }, "None.")];
}

function partitions(told) {
  const owner = (part) => `${told.process.instance}, worker ${part.worker}`;
  const columns = [["Partition"], ["Lag", "number"], ["Behind", "number"], ["Committed", "number"], ["End", "number"], ["Read", "number wide"],
    ["Owner"]];
  const rows = told.partitions.map((part) => make("tr", {},
    make("th", { scope: "row" }, `${part.topic}[${part.partition}]`),
    make("td", { class: part.lag_seconds >= LATE_S ? "number behind" : "number" }, number(part.lag_records)),
    make("td", { class: "number" }, span(part.lag_seconds)),
    make("td", { class: "number" }, number(part.committed_offset)),
    make("td", { class: "number" }, number(part.end_offset)),
    make("td", { class: "number wide" }, number(part.read_offset)),
    make("td", {}, owner(part))));
  if (!rows.length) return [make("p", { class: "none" }, "This process reads no partition.")];
  return [make("table", {}, make("caption", { class: "hidden" }, "Partitions that this process reads, with owner and position"),
    make("thead", {}, make("tr", {}, ...columns.map(([name, kind]) => make("th", { scope: "col", class: kind || null }, name)))),
    make("tbody", {}, ...rows))];
}

// ---- asking

const shown = new Map();

function replace(id, data, content) {
  // Left alone where nothing has changed, and where somebody is about to copy from it.
  const box = at(id), marked = document.getSelection();
  const key = JSON.stringify(data);
  if (shown.get(id) === key || (!marked.isCollapsed && box.contains(marked.anchorNode))) return;
  shown.set(id, key);
  box.replaceChildren(...content);
}

function show(told) {
  head(told);
  tiles(told);
  graph(told);
  replace("errors", told.errors, errors(told));
  replace("partitions", told.partitions, partitions(told));
}

async function ask() {
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch("live.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(`${answer.status}`);
      last = await answer.json();
      answeredAt = Date.now();
      show(last);
    } catch (error) {
      console.warn("live.json:", error);
    }
    problems(last, Date.now() - answeredAt);
  }
  setTimeout(ask, EVERY_MS);
}

at("pause").addEventListener("click", (event) => {
  paused = !paused;
  answeredAt = Date.now();
  event.target.setAttribute("aria-pressed", String(paused));
  event.target.textContent = paused ? "Resume" : "Pause";
});
window.addEventListener("resize", () => { if (last) graph(last); });
ask();
