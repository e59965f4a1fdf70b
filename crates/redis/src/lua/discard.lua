-- Takes the position away: the owner builds the view again.
redis.call('HDEL', c, 'off')
return ''
