import type { T } from '@start9labs/start-sdk'
import { sdk } from './sdk'

export const vault = 'vault'
const webPort = 8080

/** Where this container reaches the vault: host and port of the server's bridge, null while there is no vault. */
export const vaultAddress = (effects: T.Effects) => sdk.host.getBridgeAddress(effects, { packageId: vault, hostId: 'web', internalPort: webPort, ssl: false })

/** Reads an entry over HTTP. */
export async function readEntry(effects: T.Effects, name: string): Promise<string | null> {
  const address = await vaultAddress(effects).once()
  if (!address) return null
  const answer = await fetch(`http://${address}/cgi-bin/entry?${name}`, { signal: AbortSignal.timeout(5000) })
  return answer.ok ? answer.text() : null
}

/** Writes an entry by the vault's action, which is open to those who depend on it. */
export const writeEntry = (effects: T.Effects, name: string, text: string) =>
  effects.action.run({ packageId: vault, actionId: 'put', input: { name, text } })

/** The accounts are one entry: a line for each amount. */
export const accounts = 'accounts'

export async function record(effects: T.Effects, what: string, amount: number): Promise<string> {
  const before = (await readEntry(effects, accounts)) ?? ''
  const text = `${before}${what}\t${amount}\n`
  await writeEntry(effects, accounts, text)
  return text
}
