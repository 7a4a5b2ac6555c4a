import type { T } from '@start9labs/start-sdk'
import { sdk } from './sdk'

/** How often each watch has been told of a change, and the last value. */
export const watched: Record<string, { times: number; value: unknown }> = {}

/** Watches, for as long as the container lives, what only the test outside can change. */
export async function watch(effects: T.Effects) {
  const follow = async (name: string, values: AsyncGenerator<unknown>) => {
    for await (const value of values) watched[name] = { times: (watched[name]?.times ?? 0) + 1, value: value ?? null }
  }
  void follow('smtp', sdk.getSystemSmtp(effects).watch()).catch(() => {})
  void follow('gateway', sdk.getOutboundGateway(effects).watch()).catch(() => {})
  void follow('address', sdk.getContainerIp(effects, { packageId: 'conformance-peer' }).watch()).catch(() => {})
  void follow('status', sdk.getStatus(effects, { packageId: 'conformance-peer' }).watch()).catch(() => {})
  // Not the SDK's: an effect with its bare callback, read once, so that what
  // counts is how often the server itself fires.
  watched.manifest = { times: 0, value: null }
  await effects.getServiceManifest({ packageId: 'conformance-peer', callback: () => watched.manifest!.times++ })
  watched.certificate = { times: 0, value: null }
  await effects.getSslCertificate({ hostnames: ['conformance-probe.startos'], callback: () => watched.certificate!.times++ })
  return null
}
