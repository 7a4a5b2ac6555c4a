import { sdk } from './sdk'

export const webPort = 8090
export const tlsPort = 8453

export const setInterfaces = sdk.setupInterfaces(async ({ effects }) => {
  const host = sdk.MultiHost.of(effects, 'web')
  const plain = { masked: false, schemeOverride: null, username: null, path: '', query: {} }
  const web = await host.bindPort(webPort, { protocol: 'http' })
  const secure = await host.bindPort(tlsPort, { protocol: 'https' }) // brings its own TLS
  return [
    await web.export([sdk.createInterface(effects, { ...plain, id: 'report', name: 'Report', description: 'Everything in the vault', type: 'ui' })]),
    await secure.export([sdk.createInterface(effects, { ...plain, id: 'balance', name: 'Balance', description: 'The sum of the accounts', type: 'api' })]),
  ]
})
