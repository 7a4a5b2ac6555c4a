// Draws /openapi.json as a page. Plain DOM, no library, nothing from elsewhere.
"use strict";

const verbs = ["get", "post", "put", "patch", "delete"];
let contract;

// el makes an element: el("p", {class: "x"}, "text", child, ...)
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

// prose turns `code` into code and blank lines into paragraphs.
function prose(text, cls) {
  const out = el("div", { class: cls || "" });
  for (const part of (text || "").split(/\n\n+/)) {
    if (part) out.append(el("p", {}, ...part.split(/`([^`]+)`/).map((s, i) => (i % 2 ? el("code", {}, s) : s))));
  }
  return out;
}

function inline(text) {
  return (text || "").split(/`([^`]+)`/).map((s, i) => (i % 2 ? el("code", {}, s) : s));
}

function resolve(schema) {
  const ref = schema && schema.$ref;
  if (!ref) return [schema || {}, ""];
  const name = ref.split("/").pop();
  return [contract.components.schemas[name] || {}, name];
}

function typeName(schema) {
  const [s, name] = resolve(schema);
  if (name) return name;
  const types = [].concat(s.type || (s.properties ? "object" : s.oneOf ? "one of" : "any"));
  return types.map((t) => (t === "array" ? typeName(s.items) + "[]" : s.format ? `${t} (${s.format})` : t)).join(" | ");
}

function limits(s) {
  const out = [];
  if (s.enum) out.push(s.enum.map((v) => JSON.stringify(v)).join(" | "));
  if (s.default !== undefined) out.push("default " + JSON.stringify(s.default));
  if (s.minimum !== undefined || s.maximum !== undefined) out.push(`${s.minimum ?? "…"} to ${s.maximum ?? "…"}`);
  if (s.minLength !== undefined) out.push(`at least ${s.minLength} characters`);
  if (s.examples && s.examples.length) out.push("such as " + JSON.stringify(s.examples[0]));
  return out.join("; ");
}

// shape draws what is inside of a schema, each level when it is opened.
function shape(schema, depth) {
  const [s] = resolve(schema);
  if (s.oneOf) return el("div", { class: "schema" }, ...s.oneOf.map((o) => el("div", { class: "row" }, el("b", {}, o.title || typeName(o)), " ", el("span", { class: "doc" }, ...inline(o.description)), shape(o.properties && o.properties.data ? o.properties.data : o, depth + 1) || "")));
  if ([].concat(s.type).includes("array")) return shape(s.items, depth);
  if (s.additionalProperties && typeof s.additionalProperties === "object") return el("div", { class: "schema" }, el("div", { class: "row" }, el("i", {}, "each member "), el("span", { class: "type" }, typeName(s.additionalProperties)), deeper(s.additionalProperties, depth) || ""));
  const members = Object.entries(s.properties || {});
  if (!members.length) return null;
  const required = new Set(s.required || []);
  return el("div", { class: "schema" }, ...members.map(([name, sub]) => {
    const [r] = resolve(sub);
    const row = el("div", { class: "row" }, el("code", {}, name), " ", el("span", { class: "type" }, typeName(sub)), required.has(name) ? "" : el("span", { class: "doc" }, " optional"));
    const note = [sub.description || r.description, limits(r)].filter(Boolean).join(" · ");
    if (note) row.append(el("div", { class: "doc" }, ...inline(note)));
    const inside = deeper(sub, depth);
    if (inside) row.append(inside);
    return row;
  }));
}

function deeper(schema, depth) {
  const [s] = resolve(schema);
  const item = [].concat(s.type).includes("array") ? resolve(s.items)[0] : s;
  if (!item.properties && !item.oneOf && !(item.additionalProperties && typeof item.additionalProperties === "object")) return null;
  const box = el("details", {}, el("summary", { class: "doc" }, "members"));
  box.addEventListener("toggle", () => {
    if (box.open && box.childElementCount === 1 && depth < 12) box.append(shape(schema, depth + 1) || "");
  });
  return box;
}

function content(media) {
  return Object.entries(media || {}).map(([type, m]) => el("div", {}, el("code", {}, type), " ", el("span", { class: "type" }, m.schema ? typeName(m.schema) : ""), (m.schema && shape(m.schema, 0)) || ""));
}

function access(op) {
  const need = op.security || contract.security || [];
  if (need.some((n) => Object.keys(n).length === 0)) return "for anyone";
  return need.some((n) => n.socket) ? "only on the server's own socket" : "needs a session";
}

function curl(path, verb, op) {
  const parts = ["curl"];
  if (verb !== "get") parts.push("-X " + verb.toUpperCase());
  if (access(op) === "needs a session") parts.push('-H "Authorization: Bearer $TOKEN"');
  const types = Object.keys((op.requestBody || {}).content || {});
  if (types.includes("application/json")) {
    const [s] = resolve(op.requestBody.content["application/json"].schema);
    const sample = {};
    for (const name of s.required || []) {
      const [p] = resolve(s.properties[name]);
      sample[name] = (p.examples && p.examples[0]) ?? (p.enum && p.enum[0]) ?? "…";
    }
    parts.push(`--json '${JSON.stringify(sample)}'`);
  } else if (types.length) parts.push("-T package.s9pk");
  if (Object.keys(((op.responses || {})["200"] || {}).content || {}).includes("text/event-stream")) parts.push("-N");
  parts.push(`'${location.origin}${path}'`);
  return parts.join(" ");
}

function route(path, verb, op) {
  const bodyParts = [prose(op.description)];
  if (op.parameters && op.parameters.length) {
    bodyParts.push(el("h4", {}, "Parameters"), el("table", {}, ...op.parameters.map((p) => el("tr", {},
      el("td", {}, el("code", {}, p.name), p.required ? el("span", { class: "req" }, " *") : ""),
      el("td", {}, el("span", { class: "type" }, typeName(p.schema)), " ", el("span", { class: "doc" }, "in " + p.in)),
      el("td", { class: "doc" }, ...inline([p.description || (p.schema || {}).description, limits(p.schema || {})].filter(Boolean).join(" · ")))))));
  }
  if (op.requestBody) bodyParts.push(el("h4", {}, "Body"), ...content(op.requestBody.content));
  bodyParts.push(el("h4", {}, "Answers"));
  for (const [status, r] of Object.entries(op.responses || {})) {
    const good = status < "300";
    const box = el("details", good ? { class: "status", open: "" } : { class: "status" }, el("summary", {}, el("b", {}, status), " ", ...inline(r.description)));
    box.append(...content(r.content));
    bodyParts.push(box);
  }
  bodyParts.push(el("h4", {}, "Try it"), el("pre", {}, curl(path, verb, op)));
  return el("article", { id: op.operationId },
    el("header", {}, el("span", { class: "verb " + verb }, verb), el("span", { class: "path" }, path), el("h3", {}, op.summary || ""), el("span", { class: "badge" }, access(op))),
    el("div", {}, ...bodyParts));
}

function draw() {
  const groups = new Map((contract.tags || []).map((t) => [t.name, { doc: t.description, routes: [] }]));
  for (const [path, item] of Object.entries(contract.paths)) {
    for (const verb of verbs) {
      if (!item[verb]) continue;
      const tag = (item[verb].tags || ["Other"])[0];
      if (!groups.has(tag)) groups.set(tag, { routes: [] });
      groups.get(tag).routes.push([path, verb, item[verb]]);
    }
  }
  const main = document.getElementById("main");
  const list = document.getElementById("list");
  main.replaceChildren(el("section", { id: "top" }, el("h1", {}, contract.info.title), el("p", { class: "soft" }, "version " + contract.info.version, " · OpenAPI ", contract.openapi, ": ", el("a", { href: "/openapi.json" }, "JSON"), ", ", el("a", { href: "/openapi.yaml" }, "YAML")), prose(contract.info.description)));
  for (const [tag, group] of groups) {
    if (!group.routes.length) continue;
    main.append(el("section", {}, el("h2", {}, tag), el("p", { class: "soft" }, group.doc || ""), ...group.routes.map((r) => route(...r))));
    list.append(el("section", {}, el("h2", {}, tag), el("ul", {}, ...group.routes.map(([path, verb, op]) => el("li", { "data-text": `${verb} ${path} ${op.summary}`.toLowerCase() }, el("a", { href: "#" + op.operationId, title: `${verb.toUpperCase()} ${path}` }, el("span", { class: "verb " + verb }, verb), op.summary || path))))));
  }
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase().trim();
  for (const li of document.querySelectorAll("#list li")) li.hidden = !li.dataset.text.includes(wanted);
  for (const section of document.querySelectorAll("#list section")) section.hidden = !section.querySelector("li:not([hidden])");
});

fetch("/openapi.json").then((r) => r.json()).then((c) => { contract = c; draw(); }).catch((err) => {
  document.getElementById("main").replaceChildren(el("p", {}, "The contract could not be read: " + err.message));
});
