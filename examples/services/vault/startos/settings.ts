import * as fs from 'node:fs/promises'
import { FileHelper, z } from '@start9labs/start-sdk'
import { sdk } from './sdk'

const shape = z.object({
  title: z.string().catch('Vault'),
  /** Bytes that one entry may have. */
  limit: z.number().catch(1000),
})

/** What the owner chose, on the volume: settings.json. */
export const settings = FileHelper.json({ base: sdk.volumes.main, subpath: 'settings.json' }, shape)

/** The folder with a file for each entry. */
export const entries = sdk.volumes.main.subpath('entries')

export const namePattern = /^[a-z0-9]+(-[a-z0-9]+)*$/

export async function putEntry(name: string, text: string): Promise<void> {
  if (!namePattern.test(name)) throw new Error(`${JSON.stringify(name)} is no name for an entry`)
  const { limit } = (await settings.read().once()) ?? { limit: 1000 }
  if (Buffer.byteLength(text) > limit) throw new Error(`the text has more than ${limit} bytes`)
  await fs.mkdir(entries, { recursive: true })
  // Written beside and renamed, so that a reader never sees half of it.
  await fs.writeFile(`${entries}/${name}.new`, text)
  await fs.rename(`${entries}/${name}.new`, `${entries}/${name}`)
}

export async function listEntries(): Promise<{ name: string; text: string }[]> {
  const names = await fs.readdir(entries).catch(() => [] as string[])
  return Promise.all(names.filter(n => namePattern.test(n)).map(async name => ({ name, text: await fs.readFile(`${entries}/${name}`, 'utf8') })))
}
