// Builds dist/index.js: src and the SDK in one CommonJS file, with the licences of
// what is inside beside it. `node build.mjs DIR` writes elsewhere.
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = path.dirname(fileURLToPath(import.meta.url))
const out = process.argv[2] ?? path.join(here, 'dist')
const names = fs.readdirSync(path.join(here, 'src')).filter(n => n.endsWith('.ts')).sort()
const digest = createHash('sha256')
for (const name of names) digest.update(`${name}\0${fs.readFileSync(path.join(here, 'src', name), 'utf8')}\0`)

const result = await build({
  absWorkingDir: here,
  entryPoints: ['src/index.ts'],
  outfile: path.join(out, 'index.js'),
  bundle: true,
  minify: true,
  keepNames: true, // errors name classes
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  external: ['encoding'],
  legalComments: 'none', // licences.txt has them whole
  metafile: true,
  logLevel: 'warning',
  banner: { js: `// Made from src by build.mjs; edit there. Sources: sha256 ${digest.digest('hex')}` },
})

const packages = new Set()
for (const input of Object.keys(result.metafile.inputs)) {
  const at = input.lastIndexOf('node_modules/')
  if (at < 0) continue
  const [first, second] = input.slice(at + 'node_modules/'.length).split('/')
  packages.add(input.slice(0, at) + 'node_modules/' + (first.startsWith('@') ? `${first}/${second}` : first))
}
const texts = [...packages].map(dir => {
  const about = JSON.parse(fs.readFileSync(path.join(here, dir, 'package.json'), 'utf8'))
  const file = fs.readdirSync(path.join(here, dir)).sort().find(n => /^licen[cs]e/i.test(n))
  const text = file ? fs.readFileSync(path.join(here, dir, file), 'utf8').replaceAll('\r\n', '\n').trim() : `Licence: ${about.license}`
  return `${about.name} ${about.version}\n\n${text}\n`
})
fs.writeFileSync(path.join(out, 'licences.txt'), [...new Set(texts)].sort().join(`\n${'-'.repeat(72)}\n\n`))
