// Builds dist/index.js: every module of src, its types erased, in one CommonJS
// file without dependencies. `node build.mjs FILE` writes elsewhere.
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const here = path.dirname(fileURLToPath(import.meta.url))
const out = process.argv[2] ?? path.join(here, 'dist/index.js')
const names = fs.readdirSync(path.join(here, 'src')).filter(n => n.endsWith('.ts')).sort()

const digest = createHash('sha256')
const modules = names.map(name => {
  const source = fs.readFileSync(path.join(here, 'src', name), 'utf8')
  digest.update(`${name}\0${source}\0`)
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.CommonJS,
      removeComments: true,
      newLine: ts.NewLineKind.LineFeed,
      esModuleInterop: false,
    },
    fileName: name,
  })
  return `'./${name.slice(0, -3)}'(exports, require) {\n${outputText.trimEnd()}\n},\n`
})

const text = `'use strict';
// Made from src by build.mjs; edit there. Sources: sha256 ${digest.digest('hex')}
const outer = require;
const loaded = {};
function load(name) {
  if (!Object.hasOwn(modules, name)) return outer(name);
  if (!Object.hasOwn(loaded, name)) modules[name]((loaded[name] = {}), load);
  return loaded[name];
}
load.main = outer.main;
const modules = {
${modules.join('')}};
module.exports = Object.fromEntries(Object.keys(modules).map(name => [name.slice(2), load(name)]));
`
fs.mkdirSync(path.dirname(out), { recursive: true })
fs.writeFileSync(out, text)
