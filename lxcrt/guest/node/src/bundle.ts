import * as fs from 'node:fs'
import * as path from 'node:path'
import type { Effects } from './effects'
import type { ExtendedVersion, VersionRange } from './exver'

/** Why a package's code is being initialised; null is a plain load. */
export type InitKind = 'install' | 'update' | 'restore' | null

/** What a built daemon chain offers. */
export interface Running {
  term(): Promise<unknown>
}

/** An action of the package. */
export interface Action {
  getInput(options: { effects: Effects; prefill: unknown }): Promise<unknown>
  run(options: { effects: Effects; input: unknown }): Promise<unknown>
}

/** What a package's bundle exports (StartOS SDK 2.0). */
export interface Bundle {
  init(options: { effects: Effects; kind: InitKind }): Promise<unknown>
  main(options: { effects: Effects }): Promise<{ build(): Promise<Running> }>
  uninit(options: { effects: Effects; target: ExtendedVersion | VersionRange | null }): Promise<unknown>
  createBackup?(options: { effects: Effects }): Promise<unknown>
  actions?: { get(id: string): Action | undefined }
}

/** Loads the bundle of the package in a folder; its module-level code runs now. */
export function loadBundle(folder: string): Bundle {
  const file = path.join(folder, 'index.js')
  if (!fs.existsSync(file)) {
    if (fs.existsSync(path.join(folder, 'embassy.js'))) {
      throw new Error('the package has an embassy.js, made for StartOS 0.3.5; that format is not supported')
    }
    throw new Error(`${file} not found`)
  }
  const bundle = require(file) as Partial<Bundle>
  for (const name of ['init', 'main', 'uninit'] as const) {
    if (typeof bundle[name] !== 'function') throw new Error(`${file} does not export the function ${name}`)
  }
  return bundle as Bundle
}
