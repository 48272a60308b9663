"""The page at `/`, as one document: it fetches what it shows and needs nothing from elsewhere.

What comes from records only ever becomes text of an element, never markup;
  the policy in the headers is the second lock.
"""

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #66717f;
  --line: #e3e7ec;
  --main: #4f5bd5; --good: #2a9d6f; --warn: #d98a1f; --bad: #d1434b;
    --mono: ui-monospace, Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --card: #1a2028; --ink: #e6eaf0; --soft: #93a0b0;
  --line: #2a323d; --main: #8b95f2; --good: #4cc38f; --warn: #e6a94a; --bad: #ec6a72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, sans-serif; }
header { display: flex; align-items: baseline; gap: 14px; padding: 18px 24px 6px; flex-wrap: wrap; }
h1 { font-size: 20px; margin: 0; } h2 { font-size: 14px; margin: 0 0 10px; font-weight: 650; }
h2 small, header span { color: var(--soft); font-weight: 400; font-size: 13px; }
#live::before { content: ""; display: inline-block; width: 8px; height: 8px; border-radius: 50%;
  margin-right: 6px;
  background: var(--soft); } #live.on::before { background: var(--good); }
    #live.off::before { background: var(--bad); }
main { display: grid; grid-template-columns: repeat(12, 1fr); gap: 14px; padding: 12px 24px 32px;
  max-width: 1500px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; min-width: 0;
  grid-column: span 6; } section.wide { grid-column: span 12; } section.big { grid-column: span 8; }
section.small { grid-column: span 4; }
#tiles { grid-column: span 12; display: grid;
  grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 14px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
  .tile span { color: var(--soft); }
.tile.bad b { color: var(--bad); }
svg { display: block; width: 100%; overflow: visible; } svg text { fill: var(--soft); font-size: 11px; }
svg line { stroke: var(--line); }
rect.main { fill: var(--main); } rect.good { fill: var(--good); } rect.warn { fill: var(--warn); }
rect.bad { fill: var(--bad); } rect:hover { opacity: .75; }
.scroll { overflow: auto; max-height: 340px; } table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 500; position: sticky; top: 0;
  background: var(--card); }
td, th { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td.text { white-space: normal; }
code { font: 12px/1.5 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; }
details summary { cursor: pointer; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  max-width: 100%;
  font: 12px/1.6 var(--mono); } details { border-bottom: 1px solid var(--line); padding: 2px 0; }
details code { display: block; padding: 6px 0 8px 16px; color: var(--soft); }
.pill { border-radius: 99px; padding: 0 8px; color: #fff; font-size: 12px; background: var(--soft); }
.pill.s2 { background: var(--good); } .pill.s4 { background: var(--warn); }
  .pill.s5, .pill.s0 { background: var(--bad); }
.none { color: var(--soft); padding: 8px 0; }
.key { color: var(--soft); font-size: 12px; font-weight: 400; margin-left: 10px; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 9px; height: 9px; border-radius: 2px;
  margin-right: 5px; }
.key.good::before { background: var(--good); } .key.warn::before { background: var(--warn); }
.key.bad::before { background: var(--bad); }
@media (max-width: 900px) { section, section.big, section.small { grid-column: span 12; }
  main { padding: 12px; } }
"""

_BODY = """
<header><h1>Mixpanel emulator</h1><span id="live">connecting</span><span id="span"></span></header>
<main>
<div id="tiles"></div>
<section class="big"><h2>Events per <span id="unit">day</span>
  <small id="range"></small></h2><div id="days"></div></section>
<section class="small"><h2>Events by name</h2><div id="names"></div></section>
<section class="wide"><h2><span id="minute-title">Requests of the last minute</span> <small>a second</small>
<span class="key good">2xx</span><span class="key warn">4xx</span><span class="key bad">5xx, reset</span></h2>
<div id="minute"></div></section>
<section><h2>Latest events</h2><div id="latest" class="scroll"></div></section>
<section><h2>Profiles <small>last changed first</small></h2><div id="profiles" class="scroll"></div></section>
<section class="wide"><h2>Refused records <small>by reason, then the latest</small></h2>
<div id="reasons" class="scroll"></div><div id="refused" class="scroll"></div></section>
<section class="big"><h2>Latest requests</h2><div id="requests" class="scroll"></div></section>
<section class="small"><h2>Faults <small>that really happened</small></h2><div id="faults" class="scroll">
  </div></section>
</main>
"""

_SCRIPT = """
"use strict";
const $ = id => document.getElementById(id);
const whole = n => Number(n || 0).toLocaleString("en-US");
const bytes = n => { const u = ["B", "kB", "MB", "GB", "TB"]; let i = 0; n = n || 0;
  while (n >= 1000 && i < 4) { n /= 1000; i++; } return (i ? n.toFixed(1) : n) + " " + u[i]; };
const clock = ms => new Date(ms).toISOString().slice(11, 23);
const moment = ms => new Date(ms).toISOString().slice(0, 19).replace("T", " ") + " UTC";
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.map(child => child instanceof Node ? child : String(child)));
  return node;
}
function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function fill(id, ...nodes) { $(id).replaceChildren(...nodes); }
const none = text => el("div", {class: "none"}, text);
function bar(x, y, width, height, kind, title) {
  const node = svg("rect", {x, y, width, height, rx: Math.min(2, width / 3), class: kind});
  node.append(svg("title", {}, title));
  return node;
}
function axes(drawing, width, height, top) {
  for (const part of [0, 0.5, 1]) {
    const y = height - part * height;
    drawing.append(svg("line", {x1: 0, x2: width, y1: y, y2: y}));
    if (part && top) drawing.append(svg("text", {x: 2, y: y - 3}, whole(Math.round(top * part))));
  }
}
function columns(id, series, fillGaps) {
  if (!series.length) return fill(id, none("No events yet."));
  const width = Math.max(300, $(id).clientWidth), height = 190;
  const drawing = svg("svg", {viewBox: `0 -16 ${width} ${height + 36}`, height: height + 36});
  const top = Math.max(...series.map(row => row[1]));
  axes(drawing, width, height, top);
  const step = width / series.length;
  series.forEach(([at, count], i) => {
    const tall = Math.max(count ? 1 : 0, count / top * height);
    const wide = Math.max(0.5, Math.min(44, step * 0.82));
    drawing.append(bar(i * step + (step - wide) / 2, height - tall, wide, tall, "main",
      `${at}: ${whole(count)}`));
  });
  const labels = Math.min(series.length, Math.max(2, Math.floor(width / 110)));
  for (let k = 0; k < labels; k++) {
    const i = labels === 1 ? 0 : Math.round(k * (series.length - 1) / (labels - 1));
    const x = Math.min(width - 34, Math.max(34, (i + 0.5) * step));
    drawing.append(svg("text", {x, y: height + 16, "text-anchor": "middle"}, series[i][0]));
  }
  fill(id, drawing);
}
function withGaps(series, unit) {
  if (unit !== "day" || series.length < 2) return series;
  const counts = new Map(series), all = [];
  const end = Date.parse(series[series.length - 1][0]);
  for (let at = Date.parse(series[0][0]); at <= end && all.length < 800; at += 86400000) {
    const day = new Date(at).toISOString().slice(0, 10);
    all.push([day, counts.get(day) || 0]);
  }
  return all.length < 800 ? all : series;
}
function rows(id, names, others) {
  if (!names.length) return fill(id, none("No events yet."));
  const all = others[0] ? [...names, [`${whole(others[0])} more names`, others[1]]] : names;
  const width = Math.max(220, $(id).clientWidth), high = 26, top = Math.max(...all.map(row => row[1]));
  const drawing = svg("svg", {viewBox: `0 0 ${width} ${all.length * high}`, height: all.length * high});
  all.forEach(([name, count], i) => {
    const shown = name.length > 34 ? name.slice(0, 33) + "…" : name;
    drawing.append(svg("text", {x: 0, y: i * high + 11}, shown));
    drawing.append(svg("text", {x: width, y: i * high + 11, "text-anchor": "end"}, whole(count)));
    drawing.append(bar(0, i * high + 15, Math.max(1, count / top * width), 6, "main",
      `${name}: ${whole(count)}`));
  });
  fill(id, drawing);
}
const kind = status => status >= 500 || status === 0 ? "bad" : status >= 400 ? "warn" : "good";
function minute(data) {
  const width = Math.max(300, $("minute").clientWidth), height = 90, step = width / 60;
  const drawing = svg("svg", {viewBox: `0 -16 ${width} ${height + 34}`, height: height + 34});
  const seconds = Array.from({length: 60}, () => ({good: 0, warn: 0, bad: 0, stored: 0}));
  for (const [second, status, count, stored] of data.minute) {
    if (!seconds[second]) continue;
    seconds[second][kind(status)] += count;
    seconds[second].stored += stored || 0;
  }
  const top = Math.max(1, ...seconds.map(s => s.good + s.warn + s.bad));
  axes(drawing, width, height, data.minute.length ? top : 0);
  seconds.forEach((s, i) => {
    let y = height;
    for (const name of ["good", "warn", "bad"]) {
      const tall = s[name] / top * height;
      y -= tall;
      if (tall) drawing.append(bar(i * step + 1, y, step - 2, tall, name,
        `${clock(data.minute_ends_ms - (60 - i) * 1000).slice(0, 8)}: ${whole(s[name])}
          requests, ${whole(s.stored)} stored`));
    }
  });
  const ends = [[0, "start", 60], [width / 2, "middle", 30], [width, "end", 0]];
  for (const [x, anchor, ago] of ends)
    drawing.append(svg("text", {x, y: height + 14, "text-anchor": anchor},
      clock(data.minute_ends_ms - ago * 1000).slice(0, 8)));
  fill("minute", drawing);
  $("minute-title").textContent = data.is_live ?
    "Requests of the last minute" : "Requests of the run's last minute";
}
function table(id, heads, lines, empty) {
  if (!lines.length) return fill(id, none(empty));
  const head = el("tr", {}, ...heads.map(([text, numeric]) => el("th", numeric ? {class: "n"} : {}, text)));
  fill(id, el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines.map(cells => el("tr", {},
    ...cells)))));
}
const cell = text => el("td", {}, text), number = text => el("td", {class: "n"}, text);
const opened = new Set();
function unfolding(id, items, empty) {
  if (!items.length) return fill(id, none(empty));
  fill(id, ...items.map(([title, text]) => {
    const node = el("details", {}, el("summary", {}, title), el("code", {}, pretty(text)));
    const key = id + title + text;
    node.open = opened.has(key);
    node.addEventListener("toggle", () => node.open ? opened.add(key) : opened.delete(key));
    return node;
  }));
}
function pretty(text) { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } }
function eventTitle(raw) {
  try {
    const {event, properties} = JSON.parse(raw);
    const ms = properties.time < 31536000000 ? properties.time * 1000 : properties.time;
    return `${moment(ms)}  ${event}  ${properties.distinct_id ?? ""}`;
  } catch { return raw.slice(0, 140); }
}
function refusedTitle(raw) {
  try { const {message, record} = JSON.parse(raw); return [`${message}  ${record.slice(0, 100)}`, record]; }
  catch { return [raw.slice(0, 140), raw]; }
}
function tiles(counts, gauges) {
  const tile = (text, value, bad) => el("div", {class: bad ? "tile bad" : "tile"}, el("b", {}, value),
    el("span", {}, text));
  fill("tiles", tile("events stored", whole(counts.events)), tile("profile updates",
    whole(counts.profile_updates)),
    tile("user profiles", whole(counts.profiles)), tile("group profiles", whole(counts.groups)),
    tile("records refused", whole(counts.refused), counts.refused > 0), tile("requests",
      whole(counts.requests)),
    tile("JSON received", bytes(counts.bytes_raw)), tile("on the wire", bytes(counts.bytes_wire)),
    tile("peak concurrency", whole(gauges.peak_concurrency)));
}
function show(data) {
  tiles(data.counts, data.gauges);
  $("unit").textContent = data.unit;
  const series = withGaps(data.series, data.unit);
  $("range").textContent = series.length ? `${series[0][0]} to ${series[series.length - 1][0]}` : "";
  $("span").textContent = data.counts.first_time
    ? `requests from ${moment(data.counts.first_time)}
      to ${moment(data.counts.last_time)}` : "nothing received yet";
  columns("days", series);
  rows("names", data.names, data.other_names);
  minute(data);
  unfolding("latest", data.latest.map(raw => [eventTitle(raw), raw]), "No events yet.");
  unfolding("profiles", data.profiles.map(p => [p.group_key ? `${p.group_key}: ${p.id}` : p.id,
    p.properties]),
    "No profiles yet.");
  table("reasons", [["field"], ["message"], ["records", true]], data.reasons.map(([field, message, count]) =>
    [cell(field || "–"), el("td", {class: "text"}, message), number(whole(count))]), "Nothing was refused.");
  if (data.refused.length) unfolding("refused", data.refused.map(refusedTitle), ""); else fill("refused");
  table("requests", [["time (UTC)"], ["request"], ["status"], ["records", true], ["refused", true],
    ["JSON", true],
    ["wire", true], ["ms", true], ["fault"]],
    data.requests.map(r => [cell(clock(r.received_ms)), cell(`${r.method} ${r.path}`),
      el("td", {}, el("span", {class: "pill s" + String(r.status)[0]}, r.status || "none")),
        number(whole(r.records)),
      number(whole(r.refused)), number(bytes(r.bytes_raw)), number(bytes(r.bytes_wire)),
        number(r.took_ms.toFixed(1)),
      cell(r.fault || "")]), "No requests yet.");
  table("faults", [["fault"], ["times", true]],
    Object.entries(data.faults).map(([name, count]) => [cell(name), number(whole(count))]),
      "No faults are set.");
}
async function refresh() {
  try {
    const response = await fetch("/_emulator/overview");
    const data = await response.json();
    show(data);
    $("live").className = "on";
    $("live").textContent = "live";
    document.body.dataset.ready = "yes";
  } catch (error) {
    $("live").className = "off";
    $("live").textContent = "the emulator does not answer";
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}
refresh();
"""

PAGE = (
    "<!doctype html><html lang=en><head><meta charset=utf-8><title>Mixpanel emulator</title>"
    '<meta name=viewport content="width=device-width, initial-scale=1">'
    f"<style>{_STYLE}</style></head><body>{_BODY}<script>{_SCRIPT}</script></body></html>"
)
PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def _hash(text: str) -> str:
    """Returns by what the policy knows a piece of this page; nothing smuggled in has the same."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


PAGE_HEADERS["content-security-policy"] = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
