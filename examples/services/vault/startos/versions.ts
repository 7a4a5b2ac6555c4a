import * as fs from 'node:fs/promises'
import { IMPOSSIBLE, VersionGraph, VersionInfo } from '@start9labs/start-sdk'
import { entries } from './settings'
import { sdk } from './sdk'

/** Version 1.0 kept entries in notes/. */
const old = sdk.volumes.main.subpath('notes')

const move = async (from: string, to: string) => {
  await fs.rename(from, to).catch(e => {
    if (e.code !== 'ENOENT') throw e // there were none
  })
}

const first = VersionInfo.of({ version: '1.0.0:0', releaseNotes: 'The first release.', migrations: { down: IMPOSSIBLE } })

const current = VersionInfo.of({
  version: '1.1.0:0',
  releaseNotes: 'Entries are files of a folder of their own.',
  migrations: {
    up: () => move(old, entries),
    down: () => move(entries, old),
  },
})

export const versionGraph = VersionGraph.of({ current, other: [first] })
