import * as fs from 'node:fs/promises'
import { entries } from './settings'
import { sdk } from './sdk'

export const { createBackup, restoreInit } = sdk.setupBackups(async () =>
  sdk.Backups.ofVolumes('main').setPreBackup(async () => {
    // What is half written does not belong in a backup.
    for (const name of await fs.readdir(entries).catch(() => [])) {
      if (name.endsWith('.new')) await fs.rm(`${entries}/${name}`)
    }
  }),
)
