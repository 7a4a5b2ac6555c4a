import { published } from '../settings'
import { sdk } from '../sdk'
import { vault } from '../vault'

const { InputSpec, Value } = sdk

/** The vault's page under a name that somebody else serves, a proxy say. */
const address = (hostname: string) => ({ packageId: vault, hostId: 'web', internalPort: 8080, ssl: true, public: true, hostname, port: 443, info: null })

const meta = { warning: null, allowedStatuses: 'any', group: 'Addresses', visibility: 'enabled' } as const

export const publish = sdk.Action.withInput(
  'publish',
  { ...meta, name: 'Publish an address', description: "Show another address of the vault's page" },
  InputSpec.of({ hostname: Value.text({ name: 'Name', required: true, default: null, patterns: [sdk.patterns.domain] }) }),
  async () => null,
  async ({ effects, input }) => {
    const { names } = (await published.read().once()) ?? { names: [] }
    await published.write(effects, { names: [...new Set([...names, input.hostname])] })
    await exportAddresses(effects)
  },
)

export const withdraw = sdk.Action.withoutInput('withdraw', { ...meta, name: 'Withdraw the addresses', description: 'Take all of them back' }, async ({ effects }) => {
  await published.write(effects, { names: [] })
  await exportAddresses(effects)
})

/** What the system shows beside another service's addresses, to manage those that come from here. */
export const table = sdk.Action.withInput(
  'addresses',
  { ...meta, name: 'Addresses', description: 'Addresses that the ledger gives to other services', visibility: 'hidden' },
  InputSpec.of({
    urlPluginMetadata: Value.hidden<{ packageId: string; interfaceId: string; hostId: string; internalPort: number }>(),
  }),
  async () => null,
  async () => ({ version: '1', title: 'Addresses', message: ((await published.read().once())?.names ?? []).join('\n') || 'There are none.', result: null }),
)

/** Exports what is published; what is published no more goes. */
export const exportAddresses = sdk.plugin.url.setupExportedUrls(async ({ effects }) => {
  for (const name of (await published.read().once())?.names ?? []) {
    await sdk.plugin.url.exportUrl(effects, { hostnameInfo: address(name), removeAction: null, overflowActions: [] })
  }
})
