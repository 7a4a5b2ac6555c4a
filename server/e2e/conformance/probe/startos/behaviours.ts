import { containers } from './containers'
import { daemons } from './daemons'
import { data } from './data'
import { network } from './network'
import type { Case } from './row'

/** What the SDK's documentation promises to authors, each as a case run inside. */
export const behaviours: Case[] = [...containers, ...daemons, ...data, ...network]
