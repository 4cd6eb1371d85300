# Retrieve and delete all messages with net/pop, into the files 1, 2, ... of a folder.
require 'net/pop'

security, port, ca, mechanism, name, password, folder = ARGV
client = Net::POP3.new('localhost', Integer(port), mechanism == 'APOP')
if security == 'POP3S'
  client.enable_ssl({ ca_file: ca, verify_mode: OpenSSL::SSL::VERIFY_PEER }, nil, Integer(port))
end
client.start(name, password) do
  client.each_mail do |message|
    File.binwrite(File.join(folder, message.number.to_s), message.pop)
    message.delete
  end
end
