import { sdk } from './sdk'

// The report is made anew, so only the settings are kept.
export const { createBackup, restoreInit } = sdk.setupBackups(async () => sdk.Backups.withOptions({ exclude: ['report'] }).addVolume('main'))
