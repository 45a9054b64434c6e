// The live page: reads /v1/live (server-sent events) and draws it. No framework, no build step.
"use strict";

const KEPT = 900;
// Upper bounds of the heat map's rows in milliseconds, as the server counts; one more row above.
const HEAT_BOUNDS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000, 10000];
const DECADES = [0.1, 1, 10, 100, 1000, 10000];
const id = (name) => document.getElementById(name);
const points = [];
let charts = [];
let latest = null;

// Figures for people.

function count(value) {
  return Math.round(value).toLocaleString("en");
}

function rate(value) {
  return value >= 100 ? count(value) : value.toLocaleString("en", { maximumFractionDigits: 1 });
}

function bytes(value) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at === 0 ? count(value) : value.toFixed(1)} ${units[at]}`;
}

function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 2 : 0)} ms`;
  return span(seconds);
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// Building the document. Text is always set as text.

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function table(into, caption, columns, rows, none) {
  const place = id(into);
  place.replaceChildren();
  if (rows.length === 0) {
    const empty = element("p", none);
    empty.className = "quiet";
    place.append(empty);
    return;
  }
  const made = element("table");
  made.setAttribute("aria-label", caption);
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", column);
    cell.scope = "col";
    head.append(cell);
  }
  const thead = element("thead");
  thead.append(head);
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach((value, at) => {
      const cell = element(at === 0 ? "th" : "td", value);
      if (at === 0) cell.scope = "row";
      line.append(cell);
    });
    body.append(line);
  }
  made.append(thead, body);
  place.append(made);
}

// Charts.

const SERIES = {
  rate: [["Acknowledged", "--one", (p) => p.messages / p.seconds], ["Refused", "--two", (p) => p.rejected / p.seconds]],
  bytes: [["MB/s", "--one", (p) => p.bytes / p.seconds / 1e6]],
  ack: [
    ["p50", "--one", (p) => (p.p50 === null ? null : p.p50 * 1e3)],
    ["p99", "--three", (p) => (p.p99 === null ? null : p.p99 * 1e3)],
    ["p99.9", "--two", (p) => (p.p999 === null ? null : p.p999 * 1e3)],
  ],
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function columns(name) {
  return [points.map((p) => p.time), ...SERIES[name].map(([, , of]) => points.map(of))];
}

function draw(name) {
  const place = id(name);
  place.replaceChildren();
  const hours = (seconds) => new Date(seconds * 1e3).toLocaleTimeString("en-GB");
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const chart = new uPlot({
    width: place.clientWidth,
    height: 160,
    cursor: { sync: { key: "mailrace" } },
    scales: name === "ack" ? { y: { distr: 3 } } : { y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
    axes: [{ ...axis, space: 80, values: (_, splits) => splits.map(hours) },
      { ...axis, size: 60, ...(name === "ack" ? { splits: () => DECADES, filter: (_, splits) => splits, values: (_, splits) => splits.map(String) } : {}) }],
    series: [{ label: "Time", value: (_, v) => (v === null ? "–" : hours(v)) }, ...SERIES[name].map(([label, stroke]) => ({
      label, stroke: colour(stroke), width: 1.5, value: (_, v) => (v === null ? "–" : rate(v)),
    }))],
  }, columns(name), place);
  place.tabIndex = 0;
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", `${place.parentElement.querySelector("h2").textContent}, the last 15 minutes; arrow keys read the values`);
  return { name, chart };
}

function drawHeat() {
  const canvas = id("heat").querySelector("canvas");
  const wide = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const high = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  canvas.width = wide;
  canvas.height = high;
  const context = canvas.getContext("2d");
  const left = 62 * devicePixelRatio;
  const rows = HEAT_BOUNDS.length + 1;
  const tall = high / rows;
  const most = Math.max(1, ...points.flatMap((p) => p.heat));
  const heat = colour("--heat");
  context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillStyle = colour("--quiet");
  for (let row = 0; row < rows; row += 1) {
    const label = row < HEAT_BOUNDS.length ? `≤ ${HEAT_BOUNDS[row]} ms` : "more";
    if (row % 2 === 0) context.fillText(label, 0, high - (row + 0.5) * tall);
  }
  // As the charts: as wide as what there is, from a minute on.
  const step = (wide - left) / Math.max(60, points.length);
  points.forEach((point, at) => {
    const x = wide - (points.length - at) * step;
    point.heat.forEach((counted, row) => {
      if (counted === 0) return;
      context.fillStyle = `rgba(${heat}, ${0.15 + 0.85 * Math.log1p(counted) / Math.log1p(most)})`;
      context.fillRect(x, high - (row + 1) * tall, Math.max(step, 1), Math.max(tall - 1, 1));
    });
  });
}

function drawAll() {
  charts = Object.keys(SERIES).map(draw);
  drawHeat();
}

function moveCursor(event) {
  const found = charts.find(({ name }) => id(name) === event.currentTarget);
  const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -60, PageDown: 60, Home: -Infinity, End: Infinity }[event.key];
  if (by === undefined || points.length === 0 || !found) return;
  event.preventDefault();
  const { chart, name } = found;
  const from = chart.cursor.idx ?? points.length - 1;
  const at = Math.min(points.length - 1, Math.max(0, from + by));
  const left = chart.valToPos(points[at].time, "x");
  chart.setCursor({ left, top: chart.over.clientHeight / 2 });
  const values = SERIES[name].map(([label, , of]) => `${label} ${of(points[at]) === null ? "none" : rate(of(points[at]))}`);
  id("readout").textContent = `${new Date(points[at].time * 1e3).toLocaleTimeString("en-GB")}: ${values.join(", ")}`;
}

// What the server sends.

function show(sample) {
  latest = sample;
  id("version").textContent = `${sample.version} (${sample.revision})`;
  id("about").textContent = `up ${span(sample.uptime)}, ${sample.shards.length} ${sample.shards.length === 1 ? "shard" : "shards"}`;
  badge(sample.ready ? "ready" : "not ready", sample.ready);
  const warnings = id("warnings");
  const shown = sample.warnings.join("\n");
  if (warnings.dataset.shown !== shown) {
    warnings.dataset.shown = shown;
    warnings.replaceChildren(...sample.warnings.map((line) => element("li", line)));
    warnings.hidden = sample.warnings.length === 0;
  }
  const lag = Math.max(0, ...sample.groups.map((group) => group.oldest_age ?? 0));
  const all = sample.messages + sample.rejected;
  tiles([
    ["Messages/s", rate(sample.messages / sample.seconds)],
    ["MB/s", rate(sample.bytes / sample.seconds / 1e6)],
    ["Refused", all === 0 ? "0 %" : `${(100 * sample.rejected / all).toFixed(1)} %`],
    ["Sessions", count(sample.sessions)],
    ["p99 to the 250", time(sample.p99)],
    ["Longest lag", sample.groups.length === 0 ? "–" : span(lag)],
    ["Disk free", sample.disk ? bytes(sample.disk.free_bytes) : "–"],
  ]);
  table("shards", "Shards", ["Shard", "State", "Messages/s", "Sessions", "Busy", "In flight", "Unsynced"],
    sample.shards.map((s) => [`${s.shard}`, s.state, rate(s.messages / sample.seconds), count(s.sessions),
      `${Math.round(100 * s.busy)} %`, bytes(s.inflight_bytes), count(s.unsynced)]), "No shard answers.");
  table("groups", "Consumer groups", ["Group", "Lag", "Oldest pending", "Readers"],
    sample.groups.map((g) => [g.name, count(g.lag), span(g.oldest_age), count(g.readers)]), "No consumer group.");
  table("exporters", "Exporters", ["Exporter", "State", "Delivered", "Retried", "Dead letters", "Errors"],
    sample.exporters.map((e) => [e.name, e.up ? "up" : "down", count(e.delivered), count(e.retried), count(e.dead_letters),
      Object.entries(e.errors).map(([kind, n]) => `${kind} ${count(n)}`).join(", ") || "none"]), "No exporter is configured.");
  const disk = sample.disk;
  const log = [["Size of the log", bytes(sample.log.bytes)], ["Segments", count(sample.log.segments)],
    ["Oldest record", sample.log.oldest_age === null ? "–" : `${span(sample.log.oldest_age)} ago`]];
  if (disk) {
    log.push(["Disk", `${disk.state}, ${bytes(disk.free_bytes)} of ${bytes(disk.size_bytes)} free`],
      ["Disk full in", disk.full_in === null ? "not filling" : span(disk.full_in)]);
  }
  table("log", "Log and disk", ["What", "Value"], log, "");
  table("replies", "Replies by code", ["Code", "Sent"],
    Object.entries(sample.replies).map(([code, n]) => [code, count(n)]), "No reply so far.");
}

function badge(text, good) {
  const state = id("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = `badge ${good ? "good" : "bad"}`;
}

function tiles(all) {
  const list = id("tiles");
  if (list.childElementCount !== all.length) {
    list.replaceChildren(...all.map(([name]) => {
      const tile = element("div");
      tile.append(element("dt", name), element("dd"));
      return tile;
    }));
  }
  all.forEach(([, value], at) => { list.children[at].querySelector("dd").textContent = value; });
}

function minutes() {
  const byMinute = new Map();
  for (const point of points) {
    const minute = Math.floor(point.time / 60);
    const sum = byMinute.get(minute) ?? { messages: 0, rejected: 0, bytes: 0, seconds: 0, p99: null };
    for (const name of ["messages", "rejected", "bytes", "seconds"]) sum[name] += point[name];
    if (point.p99 !== null) sum.p99 = Math.max(sum.p99 ?? 0, point.p99);
    byMinute.set(minute, sum);
  }
  const rows = [...byMinute].reverse().map(([minute, sum]) => [
    new Date(minute * 60e3).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }),
    rate(sum.messages / sum.seconds), rate(sum.rejected / sum.seconds), rate(sum.bytes / sum.seconds / 1e6), time(sum.p99)]);
  table("minutes", "The charts, by minute", ["Minute", "Messages/s", "Refused/s", "MB/s", "Highest p99"], rows, "Nothing yet.");
}

function keep(point) {
  points.push(point);
  if (points.length > KEPT) points.shift();
}

function refresh() {
  for (const { name, chart } of charts) chart.setData(columns(name));
  drawHeat();
  if (id("minutes").parentElement.open) minutes();
}

function take(event, data) {
  if (event === "history") {
    points.splice(0, points.length, ...data);
    drawAll();
    minutes();
  } else if (event === "sample") {
    const last = points[points.length - 1];
    if (!last || data.time > last.time) keep(data);
    show(data);
    refresh();
  }
}

// EventSource cannot send a token, so the stream is read by hand.
async function read(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch("/v1/live", { headers, cache: "no-store" });
  if (response.status === 401) return "token";
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  id("login").hidden = true;
  id("live").hidden = false;
  if (token) sessionStorage.setItem("token", token);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return "ended";
    const events = (pending + value).split("\n\n");
    pending = events.pop();
    for (const text of events) {
      const [, event, data] = /^event: (\w+)\ndata: ([^]*)$/.exec(text) ?? [];
      if (event) take(event, JSON.parse(data));
    }
  }
}

async function run() {
  for (;;) {
    const token = sessionStorage.getItem("token") ?? "";
    try {
      if (await read(token) === "token") {
        sessionStorage.removeItem("token");
        id("login-error").textContent = token ? "That is not the token." : "";
        id("live").hidden = true;
        id("login").hidden = false;
        badge("token required", false);
        return;
      }
    } catch { /* The server is away: it is asked again. */ }
    badge("no connection, retrying", false);
    await new Promise((wake) => setTimeout(wake, 2000));
  }
}

function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  id("theme").setAttribute("aria-pressed", `${dark}`);
  if (charts.length > 0) drawAll();
}

const prefers = matchMedia("(prefers-color-scheme: dark)");
theme(prefers.matches);
prefers.addEventListener("change", () => theme(prefers.matches));
id("theme").addEventListener("click", () => theme(!document.documentElement.classList.contains("dark")));
for (const name of Object.keys(SERIES)) id(name).addEventListener("keydown", moveCursor);
id("minutes").parentElement.addEventListener("toggle", minutes);
id("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", id("token").value);
  run();
});
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawAll, 150);
});
drawAll();
run();
