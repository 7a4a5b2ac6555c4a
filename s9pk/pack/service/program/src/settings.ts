import { FileHelper, T, z } from '@start9labs/start-sdk'
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { description, TemplateFile } from './description'
import { defaults } from './form'
import { sdk } from './sdk'
import { fill, Scope } from './template'

export type Settings = Record<string, unknown>

const config = description.config

/** What the owner chose, on a volume. */
export const settingsFile =
  config && FileHelper.json({ base: sdk.volumes[config.volume], subpath: config.path }, z.record(z.string(), z.unknown()))

/** Gives every setting that has none its default. */
export async function completeSettings(effects: T.Effects) {
  if (!config || !settingsFile) return
  const now = (await settingsFile.read().once()) ?? null
  const missing = Object.entries(defaults(config.form)).filter(([key]) => now === null || !Object.hasOwn(now, key))
  if (now === null || missing.length > 0) await settingsFile.write(effects, { ...now, ...Object.fromEntries(missing) })
}

export const settings = async (): Promise<Settings> => (await settingsFile?.read().once()) ?? {}

/** As settings, and what called is called again when they change. */
export const watchedSettings = async (effects: T.Effects): Promise<Settings> => (await settingsFile?.read().const(effects)) ?? {}

export async function writeFiles(scope: Scope) {
  for (const f of description.files) await writeFile(f, scope)
}

async function writeFile(f: TemplateFile, scope: Scope) {
  const to = path.join('/media/startos/volumes', f.volume, f.path)
  if (f.keep && (await fs.stat(to).catch(() => null))) return
  await fs.mkdir(path.dirname(to), { recursive: true })
  const part = `${to}.part`
  await fs.rm(part, { force: true })
  await fs.writeFile(part, fill(f.content, scope), { flag: 'wx', mode: 0o600 })
  await fs.chmod(part, parseInt(f.mode, 8))
  await fs.rename(part, to)
}
