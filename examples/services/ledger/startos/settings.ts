import { FileHelper, z } from '@start9labs/start-sdk'
import { sdk } from './sdk'

/** What the owner chose, on the volume: settings.yaml. */
export const settings = FileHelper.yaml(
  { base: sdk.volumes.main, subpath: 'settings.yaml' },
  z.object({
    /** Seconds between two reports. */
    every: z.number().catch(2),
    /** Who gets the report; null is nobody. */
    mailTo: z.string().nullable().catch(null),
  }),
)

/** Addresses that were published for the vault. */
export const published = FileHelper.json({ base: sdk.volumes.main, subpath: 'published.json' }, z.object({ names: z.array(z.string()).catch([]) }))
