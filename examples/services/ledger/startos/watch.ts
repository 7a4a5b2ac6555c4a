import { sdk } from './sdk'
import { vault } from './vault'

/** What was told of other parts of the server; the newest of each. */
export const news: Record<string, string> = {}

/** Watches what lies outside of this service, as long as it is loaded. */
export const watchOthers = sdk.setupOnInit(async effects => {
  const tell = (what: string) => (value: unknown) => {
    news[what] = JSON.stringify(value ?? null)
    console.info(`${what}: ${news[what]}`)
    return { cancel: false }
  }
  sdk.getStatus(effects, { packageId: vault }).onChange(status => tell('state of the vault')((status as any)?.desired.main))
  sdk.host.get(effects, { packageId: vault, hostId: 'web' }, host => Object.keys(host?.bindings ?? {})).onChange(tell('ports of the vault'))
  sdk.getContainerIp(effects, { packageId: vault }).onChange(tell('address of the vault'))
  sdk.getServiceManifest(effects, vault, manifest => manifest?.version ?? null).onChange(tell('version of the vault'))
  sdk.getOutboundGateway(effects).onChange(tell('gateway'))
  sdk.getSystemSmtp(effects).onChange(smtp => tell('mail server')((smtp as any)?.host))
})
