import { sdk } from './sdk'

export const webPort = 8080

/** Where copies of the store would be served from; four ports in a row. */
export const copies = { internalStartPort: 45000, externalStartPort: 45000, numberOfPorts: 4 }

const plain = { masked: false, schemeOverride: null, username: null, path: '', query: {} }

export const setInterfaces = sdk.setupInterfaces(async ({ effects }) => {
  const web = sdk.MultiHost.of(effects, 'web')
  const origin = await web.bindPort(webPort, { protocol: 'http' })
  const page = sdk.createInterface(effects, { ...plain, id: 'page', name: 'Page', description: 'What the vault is', type: 'ui' })
  const api = sdk.createInterface(effects, { ...plain, id: 'api', name: 'Entries', description: 'Read and write entries over HTTP', type: 'api', path: '/cgi-bin/entry' })
  const receipt = await origin.export([page, api])

  const range = await web.bindPortRange(copies)
  await range.export(sdk.createRangeInterface(effects, { id: 'copies', name: 'Copies', description: 'Copies of the store', scheme: 'http' }))
  return [receipt]
})
